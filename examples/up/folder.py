"""A folder's pictures as requests: those that are there, and those to come.

The id is made of path and content, so that a changed picture is a new one, and one that has its
result is not asked for again.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from watchfiles import awatch

from producer.cli.folders import FolderRules, LeftOut
from producer.requests import image_request
from schemas import Request

_ID_CHARS: Final = 32


async def requests_of(
    folder: Path, is_done: Callable[[str], bool], left_out: LeftOut
) -> AsyncIterator[Request]:
    """Yield a request for each picture that is not done, then for each that lands or changes."""
    rules, asked = FolderRules(recursive=True), set[str]()
    changes = aiter(awatch(folder, step=100, rust_timeout=500))
    # The watch begins with its first turn; what is there is looked at after that.
    coming = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    try:
        paths = set(rules.pictures(folder, left_out))
        while True:
            for path in sorted(paths):
                request = await asyncio.to_thread(_request, path)
                if request and request.id not in asked and not is_done(request.id):
                    asked.add(request.id)
                    yield request
            changed = {Path(path) for _, path in await coming}
            coming = asyncio.ensure_future(anext(changes))
            paths = changed & set(rules.pictures(folder, LeftOut()))
    finally:
        coming.cancel()


def _request(path: Path) -> Request | None:
    """Return the request for a file as it is now; None if it is gone again."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    name = hashlib.sha256(f"{path}\0{digest}".encode(errors="surrogatepass")).hexdigest()
    return image_request(path, id=name[:_ID_CHARS], sha256=digest)
