"""Results as a Parquet or npz file: written aside and renamed, so that it is whole or not there.

Needs the extra `export`. Values wait in a file of their own until it is known which result of each
id holds, so that memory stays bounded by the ids and, for npz, by the vectors.
"""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Self

from producer.results import ReadResult, Status
from schemas import Embedding, Result, decode_result

_ROWS_AT_ONCE: Final = 5_000
_MAX_URI_CHARS: Final = 2_048


class _Kept(NamedTuple):
    rank: tuple[int, int, int]  # time of signing, partition, offset
    status: str
    start: int
    length: int
    key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A result that holds, when it was signed (Unix seconds), and the key of its record."""

    result: Result
    signed_at: int
    key: bytes | None


class Spool:
    """Takes the results that a `ResultReader` gives, and keeps the one of each id that holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, _Kept] = {}
        self._stack = ExitStack()
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def add(self, one: ReadResult) -> None:
        """Take in a result; of two of an id the one that holds is kept."""
        rank, held = (one.signed_at, one.partition, one.offset), self._kept.pop(one.id, None)
        if held and held.rank > rank:
            self._kept[one.id] = held
            return
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(one.value)
        self._kept[one.id] = _Kept(rank, one.result.status, start, len(one.value), one.key)

    def rows(self, statuses: Collection[Status]) -> Iterator[Row]:
        """Yield the results that hold and have one of these statuses; not those of texts."""
        for kept in self._kept.values():
            if kept.status in statuses:
                self._file.seek(kept.start)
                result = decode_result(self._file.read(kept.length))
                if result.status == "error" or result.image:
                    yield Row(result=result, signed_at=kept.rank[0], key=kept.key)


def write_parquet(path: Path, rows: Iterator[Row]) -> int:
    """Write a row for each result, and return how many there are.

    Raises:
        OSError: the file cannot be written; nothing is left of it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.int32()
    types = {
        **dict.fromkeys(("id", "status", "uri", "sha256"), text),
        **dict.fromkeys(("width", "height"), number),
        **dict.fromkeys(("format", "caption", "caption_model", "caption_revision"), text),
        "embedding": pa.list_(pa.float32()),
        **dict.fromkeys(("embedding_model", "embedding_revision", "error_code"), text),
        **dict.fromkeys(("error_message", "metadata"), text),
        "signed_at": pa.timestamp("s", tz="UTC"),
        "source_topic": text,
        "source_partition": number,
        "source_offset": pa.int64(),
    }
    schema = pa.schema(list(types.items()))
    count = 0
    with _aside(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for some in _some(rows):
            writer.write_table(pa.Table.from_pylist([_columns(row) for row in some], schema))
            count += len(some)
    return count


def write_npz(path: Path, rows: Iterator[Row]) -> tuple[int, int]:
    """Write the vectors of the newest model; return how many, and how many of others there were.

    `ids`, `uris`, `captions` (text), `vectors` (float32, a row each), `signed_at` (int64), and
    `model` and `revision`, since vectors of two models cannot be compared.

    Raises:
        OSError: the file cannot be written; nothing is left of it.
    """
    import numpy as np

    found: dict[tuple[str, str], list[tuple[Row, Any]]] = {}
    newest: tuple[int, tuple[str, str]] = (-1, ("", ""))
    for row in rows:
        embedding = row.result.embedding
        if embedding and row.result.status == "ok":
            model = (embedding.model, embedding.revision)
            newest = max(newest, (row.signed_at, model))
            bare = row.result.model_copy(update={"embedding": None, "metadata": None})
            vector = np.array(embedding.vector(), dtype=np.float32)
            kept = Row(result=bare, signed_at=row.signed_at, key=None)
            found.setdefault(model, []).append((kept, vector))
    chosen = found.pop(newest[1], [])
    with _aside(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            ids=np.array([row.result.id for row, _ in chosen], dtype=np.str_),
            uris=np.array([_uri(row.result) for row, _ in chosen], dtype=np.str_),
            captions=np.array([_caption(row.result) for row, _ in chosen], dtype=np.str_),
            vectors=np.stack([vector for _, vector in chosen]) if chosen else np.empty((0, 0)),
            signed_at=np.array([row.signed_at for row, _ in chosen], dtype=np.int64),
            model=np.array(newest[1][0]),
            revision=np.array(newest[1][1]),
        )
    return len(chosen), sum(map(len, found.values()))


def _columns(row: Row) -> dict[str, Any]:
    result = row.result
    image, caption, error = result.image, result.caption, result.error
    return {
        "id": result.id,
        "status": result.status,
        "uri": image.uri if image else None,
        "sha256": image.sha256 if image else None,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "format": image.format if image else None,
        "caption": caption.text if caption else None,
        "caption_model": caption.model if caption else None,
        "caption_revision": caption.revision if caption else None,
        **_embedding_columns(result.embedding),
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
        "metadata": result.metadata.as_sent.decode() if result.metadata is not None else None,
        "signed_at": row.signed_at,
        "source_topic": result.source.topic,
        "source_partition": result.source.partition,
        "source_offset": result.source.offset,
    }


def _embedding_columns(embedding: Embedding | None) -> dict[str, Any]:
    return {
        "embedding": embedding.vector() if embedding else None,
        "embedding_model": embedding.model if embedding else None,
        "embedding_revision": embedding.revision if embedding else None,
    }


def _caption(result: Result) -> str:
    return result.caption.text if result.caption else ""


def _uri(result: Result) -> str:
    """Return the URI; a picture in one is left out, since all texts of an array have one length."""
    uri = result.image.uri if result.image else ""
    return uri if len(uri) <= _MAX_URI_CHARS else uri.partition(":")[0] + ":"


def _some(rows: Iterator[Row]) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == _ROWS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, and rename it when the body has ended well; else remove it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
