"""What the command line names (paths, folders, globs, URIs, manifests) to requests, lazily.

`entries` looks at the file system and reads lines; `to_request` is pure but for bare paths in a
manifest, whose files must exist.
"""

import glob
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from producer.cli.outcome_lines import name_of
from producer.publisher import Keyed
from schemas import Refused, Task, decode_request
from schemas.codec import MAX_VALUE_BYTES

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
MANIFEST_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
STDIN: Final = "-"
# Two characters or more: `C:` is a drive.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class BadReference(Exception):
    """Something that cannot be published: where it stands, and what is wrong with it."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One reference: a URI, a path, or a JSON object, as bytes; `base` is where paths begin."""

    where: str
    text: bytes
    base: Path


def entries(arguments: Iterable[str], *, recursive: bool, stdin: BinaryIO) -> Iterator[Entry]:
    """Yield the references that the arguments name, in order; a folder's sorted by name.

    Raises:
        BadReference: an argument names nothing.
        OSError: a folder or a manifest cannot be read.
    """
    for argument in arguments:
        if argument == STDIN:
            yield from _lines(stdin, "line ", Path())
        elif argument and os.path.exists(argument):  # noqa: PTH110  # false for what is too long
            yield from _of_path(Path(argument), recursive=recursive)
        elif _SCHEME.match(argument):
            yield Entry(where=name_of(argument), text=os.fsencode(argument), base=Path())
        elif not glob.has_magic(argument):
            raise BadReference(argument, "no such file, folder or URI")
        else:
            yield from _of_glob(argument, recursive=recursive)


def count_entries(arguments: Sequence[str], *, recursive: bool) -> int | None:
    """Return how many references there are; None when standard input is one of the arguments.

    Raises as `entries` does, so that what is missing is known before anything is published.
    """
    files = [argument for argument in arguments if argument != STDIN]
    count = sum(1 for _ in entries(files, recursive=recursive, stdin=io.BytesIO()))
    return count if len(files) == len(arguments) else None


def to_request(entry: Entry, tasks: tuple[Task, ...], new_id: Callable[[], str]) -> Keyed:
    """Return the request that an entry stands for: a whole one, or `uri` and what goes with it.

    `tasks` hold where it names none, and the key is the id.

    Raises:
        BadReference: it breaks the wire contract, or a path in it names no file.
    """
    if len(entry.text) > MAX_VALUE_BYTES:
        raise BadReference(entry.where, f"longer than {MAX_VALUE_BYTES} bytes")
    try:
        # Not orjson: whole numbers in the metadata may be longer than 64 bits.
        members = json.loads(entry.text) if entry.text.startswith(b"{") else {}
        uri = members.pop("uri", None) if members else entry.text.decode()
    except (ValueError, RecursionError) as exc:
        reason = getattr(exc, "msg", exc)  # a JSON error's own text counts lines of its own
        raise BadReference(entry.where, f"not a URI, a path or a JSON object: {reason}") from exc
    if uri is not None and "image" in members:
        raise BadReference(entry.where, "has both `uri` and `image`")
    image = members.setdefault("image", {"uri": uri})
    if isinstance(image, dict) and isinstance(image.get("uri"), str):
        image["uri"] = _uri(image["uri"], entry)
    key = members.pop("key", None)
    if not (key is None or (isinstance(key, str) and key.isprintable())):
        raise BadReference(entry.where, "`key` is not printable text")
    members = {"version": 1, "id": new_id(), "tasks": tasks, **members}
    value = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    try:
        request = decode_request(value.encode(errors="surrogatepass"))
    except Refused as exc:
        raise BadReference(entry.where, exc.reason) from exc
    return Keyed(request=request, key=request.id if key is None else key)


def _uri(text: str, entry: Entry) -> str:
    if _SCHEME.match(text):
        return text
    path = entry.base / text
    try:
        if path.is_file():
            return path.resolve().as_uri()
    except (OSError, ValueError) as exc:  # too long a name, a NUL in it
        raise BadReference(entry.where, f"no path: {exc}") from exc
    raise BadReference(entry.where, f"no such file: {text}")


def _of_path(path: Path, *, recursive: bool) -> Iterator[Entry]:
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir():
                if recursive and not child.is_symlink():  # a link may lead back up
                    yield from _of_path(child, recursive=True)
            elif child.suffix.lower() in IMAGE_SUFFIXES:
                yield _of_file(child)
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        with path.open("rb") as lines:
            yield from _lines(lines, f"{path}:", path.parent)
    else:
        yield _of_file(path)


def _of_file(path: Path) -> Entry:
    return Entry(where=str(path), text=path.resolve().as_uri().encode(), base=Path())


def _of_glob(pattern: str, *, recursive: bool) -> Iterator[Entry]:
    found = False
    for name in glob.iglob(pattern, recursive=True):  # noqa: PTH207  # lazy, absolute or not
        found = True
        yield from _of_path(Path(name), recursive=recursive)
    if not found:
        raise BadReference(pattern, "matches nothing")


def _lines(stream: BinaryIO, name: str, base: Path) -> Iterator[Entry]:
    """Yield the lines that are not blank, each with its number; a too long one is cut."""
    number = 0
    while line := stream.readline(MAX_VALUE_BYTES + 2):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and len(rest) > MAX_VALUE_BYTES:
            rest = stream.readline(MAX_VALUE_BYTES + 2)
        if text := line.strip():
            yield Entry(where=f"{name}{number}", text=text, base=base)
