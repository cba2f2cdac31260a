"""Receipts of published requests, one line of JSON each: a later run publishes the rest alone."""

import hashlib
from pathlib import Path
from typing import Any, Final, Self

import orjson

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import json_line
from producer.publisher import Published
from schemas import Request, encode_request

PUBLISHED: Final = "published"
_DONE: Final = frozenset({PUBLISHED, "ok"})


def fingerprint(request: Request) -> str:
    """Return a digest of all but the id, in hex: requests for the same thing have the same."""
    return hashlib.sha256(encode_request(request.model_copy(update={"id": "-"}))).hexdigest()[:32]


def receipt(published: Published, status: str) -> dict[str, Any]:
    """Return the receipt of a request: its place in the log, and its status."""
    image = published.request.image
    return {
        "id": published.id,
        "status": status,
        "uri": image.uri if image else None,
        "topic": published.topic,
        "partition": published.partition,
        "offset": published.offset,
        "request": fingerprint(published.request),
    }


def as_line(members: dict[str, Any]) -> str:
    """Return a receipt as a line."""
    return json_line(orjson.dumps(members).decode())


def done_in(path: Path, *, waiting: bool) -> frozenset[str]:
    """Return the fingerprints of done requests: `ok`, or without a wait published.

    The last receipt of a request counts. A line that a kill cut off is none.

    Raises:
        FatalError: the file cannot be read, or holds something else.
    """
    statuses: dict[str, str] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return frozenset()
    except OSError as exc:
        raise FatalError(ExitCode.FAILED, f"{path}: {exc.strerror}") from exc
    for number, line in enumerate(lines, start=1):
        if line and number < len(lines):
            try:
                members = orjson.loads(line)
                statuses[members["request"]] = members["status"]
            except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
                raise FatalError(ExitCode.FAILED, f"{path}:{number}: no receipt") from exc
    done = _DONE - {PUBLISHED} if waiting else _DONE
    return frozenset(request for request, status in statuses.items() if status in done)


class Receipts:
    """Appends receipts to a file, or nowhere without a path.

    Raises:
        FatalError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Self:
        if self._path:
            try:
                _cut_partial_line(self._path)
                self._file = self._path.open("a", encoding="utf-8")
            except OSError as exc:
                raise FatalError(ExitCode.FAILED, f"{self._path}: {exc.strerror}") from exc
        return self

    def write(self, published: Published, status: str) -> None:
        """Append a receipt, and flush it."""
        if self._file:
            self._file.write(as_line(receipt(published, status)) + "\n")
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()


def _cut_partial_line(path: Path) -> None:
    """Remove a last line without its line end: a kill cut it off."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)
