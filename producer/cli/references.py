"""References of the command line (paths, folders, globs, URIs, lists) as requests, lazily.

`entries` reads folders and lines; `to_request` reads files for bare paths and ids alone.
"""

import glob
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

from producer.cli.folders import FolderRules, LeftOut
from producer.cli.outcome_lines import name_of
from producer.ids import new_id
from producer.requests import SCHEME, Keyed
from schemas import Refused, Task, decode_request
from schemas.codec import MAX_VALUE_BYTES

LIST_SUFFIXES: Final = frozenset({".jsonl", ".ndjson", ".txt"})
STDIN: Final = "-"
_BOM: Final = b"\xef\xbb\xbf"
_CHUNK_BYTES: Final = 65536
_ID_CHARS: Final = 32


class IdFrom(StrEnum):
    """The source of a request's id, if the reference names none."""

    RANDOM = "random"
    PATH = "path"
    SHA256 = "sha256"
    UUID = "uuid"
    UUID_PATH = "uuid-path"
    UUID_SHA256 = "uuid-sha256"

    @property
    def is_uuid(self) -> bool:
        """Whether the id is a UUID."""
        return self.value.startswith("uuid")


class BadReference(Exception):
    """A reference that cannot be published: its place, and the fault."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One reference: a URI, a path, or a JSON object, as bytes; paths are relative to `base`."""

    where: str
    text: bytes
    base: Path


def entries(
    arguments: Iterable[str],
    rules: FolderRules,
    stdin: BinaryIO,
    left_out: LeftOut | None = None,
) -> Iterator[Entry]:
    """Yield the arguments' references in order; a folder's are sorted by name.

    `left_out` counts the folders' other files.

    Raises:
        BadReference: an argument names nothing.
        OSError: a folder or a list cannot be read.
    """
    left_out = LeftOut() if left_out is None else left_out
    for argument in arguments:
        if argument == STDIN:
            yield from _lines(stdin, "line ", Path())
        elif argument and os.path.exists(argument):  # noqa: PTH110  # false for too long a name
            yield from _of_path(Path(argument), rules, left_out)
        elif SCHEME.match(argument):
            yield Entry(where=name_of(argument), text=os.fsencode(argument), base=Path())
        elif not glob.has_magic(argument):
            raise BadReference(argument, "no such file, folder or URI")
        else:
            yield from _of_glob(argument, rules, left_out)


def count_entries(
    arguments: Sequence[str], rules: FolderRules, left_out: LeftOut | None = None
) -> int | None:
    """Return the number of references; None with standard input among the arguments.

    Raises as `entries`, so that a missing file is known before the first request is published.
    """
    files = [argument for argument in arguments if argument != STDIN]
    count = sum(1 for _ in entries(files, rules, io.BytesIO(), left_out))
    return count if len(files) == len(arguments) else None


def to_request(entry: Entry, tasks: tuple[Task, ...], id_from: IdFrom = IdFrom.RANDOM) -> Keyed:
    """Return the request of an entry: a whole one, or a `uri` with other members.

    `tasks` is for an entry without tasks, `id_from` for one without an id; a missing key is the id.

    Raises:
        BadReference: it breaks the wire contract, or a path in it names no file.
    """
    if len(entry.text) > MAX_VALUE_BYTES:
        raise BadReference(entry.where, f"longer than {MAX_VALUE_BYTES} bytes")
    try:
        # Not orjson: integers in the metadata may have more than 64 bits.
        members = json.loads(entry.text) if entry.text.startswith(b"{") else {}
        uri = members.pop("uri", None) if members else entry.text.decode()
    except (ValueError, RecursionError) as exc:
        reason = getattr(exc, "msg", exc)  # the whole text of a JSON error has its own line numbers
        raise BadReference(entry.where, f"not a URI, a path or a JSON object: {reason}") from exc
    if uri is not None and members.keys() & {"image", "text"}:
        raise BadReference(entry.where, "has `uri` and another of `image` and `text`")
    image = None if "text" in members else members.setdefault("image", {"uri": uri})
    if isinstance(image, dict) and isinstance(image.get("uri"), str):
        image["uri"] = _uri(image["uri"], entry)
    key = members.pop("key", None)
    if not (key is None or (isinstance(key, str) and key.isprintable())):
        raise BadReference(entry.where, "`key` is not printable text")
    if "id" not in members:
        members["id"] = _new_id(id_from, image, entry)
    members = {"version": 1, **({} if "text" in members else {"tasks": tasks}), **members}
    value = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    try:
        request = decode_request(value.encode(errors="surrogatepass"))
    except Refused as exc:
        raise BadReference(entry.where, exc.reason) from exc
    return Keyed(request=request, key=request.id if key is None else key)


def _new_id(id_from: IdFrom, image: Any, entry: Entry) -> str:
    """Return an id; one of the bytes also sets the image's `sha256`."""
    if id_from in (IdFrom.RANDOM, IdFrom.UUID) or not isinstance(image, dict):
        return str(uuid4()) if id_from.is_uuid else new_id()
    uri = str(image.get("uri"))
    if id_from is IdFrom.PATH:
        return hashlib.sha256(uri.encode(errors="surrogatepass")).hexdigest()[:_ID_CHARS]
    if id_from is IdFrom.UUID_PATH:
        return str(uuid5(NAMESPACE_URL, uri.encode(errors="replace").decode()))
    if not uri.startswith("file:"):
        raise BadReference(entry.where, f"--id-from {id_from} takes files only")
    try:
        with Path(unquote(urlsplit(uri).path)).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as exc:
        raise BadReference(entry.where, f"cannot be read: {exc}") from exc
    image.setdefault("sha256", digest)
    if id_from is IdFrom.UUID_SHA256:
        return str(uuid5(NAMESPACE_URL, f"urn:sha256:{digest}"))
    return digest[:_ID_CHARS]


def _uri(text: str, entry: Entry) -> str:
    if SCHEME.match(text):
        return text
    path = entry.base / text
    try:
        if path.is_file():
            return path.resolve().as_uri()
    except (OSError, ValueError) as exc:  # too long a name, a NUL in it
        raise BadReference(entry.where, f"no path: {exc}") from exc
    kind = "a folder, not a file" if path.is_dir() else "no such file"
    raise BadReference(entry.where, f"{kind}: {text}")


def _of_path(path: Path, rules: FolderRules, left_out: LeftOut) -> Iterator[Entry]:
    if path.is_dir():
        yield from map(_of_file, rules.pictures(path, left_out))
    elif path.suffix.lower() in LIST_SUFFIXES:
        with path.open("rb") as lines:
            yield from _lines(lines, f"{path}:", path.parent)
    else:
        yield _of_file(path)


def _of_file(path: Path) -> Entry:
    return Entry(where=str(path), text=path.resolve().as_uri().encode(), base=Path())


def _of_glob(pattern: str, rules: FolderRules, left_out: LeftOut) -> Iterator[Entry]:
    found = False
    for name in glob.iglob(pattern, recursive=True):  # noqa: PTH207  # lazy, absolute or not
        found = True
        yield from _of_path(Path(name), rules, left_out)
    if not found:
        raise BadReference(pattern, "matches nothing")


def _lines(stream: BinaryIO, name: str, base: Path) -> Iterator[Entry]:
    """Yield the lines that are neither blank nor comments, each with its number."""
    for number, line in enumerate(_split(stream), start=1):
        text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
        if text and not text.startswith(b"#"):
            yield Entry(where=f"{name}{number}", text=text, base=base)


def _split(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines, cut if too long; they end in NUL if one comes before the first line end."""
    end, pending, is_cut = b"", b"", False
    while chunk := _read_some(stream):
        pending += chunk
        end = end or (b"\0" if b"\0" in pending.partition(b"\n")[0] else b"")
        if not end and b"\n" in pending:
            end = b"\n"
        *whole, pending = pending.split(end) if end else [pending]
        for line in whole:
            if not is_cut:
                yield line[: MAX_VALUE_BYTES + 2]
            is_cut = False
        if len(pending) > MAX_VALUE_BYTES:
            if not is_cut:
                yield pending[: MAX_VALUE_BYTES + 2]
            pending, is_cut = b"", True
    if pending and not is_cut:
        yield pending


def _read_some(stream: BinaryIO) -> bytes:
    """Return the bytes that are there, and wait for the first alone: a pipe may stay open."""
    read = getattr(stream, "read1", stream.read)
    data: bytes = read(_CHUNK_BYTES)
    return data
