"""Results as a Parquet or npz file, written beside its path and renamed: whole or not there.

Needs the extra `export`. A `Spool` keeps the values in a temporary file until the last result is
read, so memory is bounded by the ids and, for npz, by the vectors.
"""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from producer.columns import columns_of, embedding_columns
from producer.results import ReadResult, ResultReader, Status
from schemas import Result, decode_result

_ROWS_AT_ONCE: Final = 5_000
_MAX_URI_CHARS: Final = 2_048


class _Kept(NamedTuple):
    rank: tuple[int, int, int]
    status: str
    start: int
    length: int
    key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The latest result of an id, its time of signing (Unix seconds), and its record's key."""

    result: Result
    signed_at: int
    key: bytes | None


class Spool:
    """Keeps the latest result of each id in a temporary file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, _Kept] = {}
        self._stack = ExitStack()
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, one: ReadResult) -> None:
        """Keep a result, unless its id has a later one."""
        held = self._kept.pop(one.id, None)
        if held and held.rank > one.rank:
            self._kept[one.id] = held
            return
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(one.value)
        self._kept[one.id] = _Kept(one.rank, one.result.status, start, len(one.value), one.key)

    async def fill(self, reader: ResultReader) -> None:
        """Add all results of a reader, up to its end."""
        async for results in reader.batches():
            for one in results:
                self.add(one)

    def rows(self, statuses: Collection[Status]) -> Iterator[Row]:
        """Yield the results with one of these statuses, without those of texts."""
        for kept in self._kept.values():
            if kept.status in statuses:
                self._file.seek(kept.start)
                result = decode_result(self._file.read(kept.length))
                if result.status == "error" or result.image:
                    yield Row(result=result, signed_at=kept.rank[0], key=kept.key)


def write_parquet(path: Path, rows: Iterator[Row]) -> int:
    """Write a row for each result, and return their count.

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
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([_columns(row) for row in chunk], schema))
            count += len(chunk)
    return count


def write_npz(path: Path, rows: Iterator[Row]) -> tuple[int, int]:
    """Write the newest model's vectors; return their count, and the count of other models'.

    Vectors of two models cannot be compared, hence one `model` and `revision`. Arrays: `ids`,
    `uris`, `captions` (text), `vectors` (float32, a row each), `signed_at` (int64).

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
    source = row.result.source
    return {
        **columns_of(row.result),
        **embedding_columns(row.result.embedding),
        "signed_at": row.signed_at,
        "source_topic": source.topic,
        "source_partition": source.partition,
        "source_offset": source.offset,
    }


def _caption(result: Result) -> str:
    return result.caption.text if result.caption else ""


def _uri(result: Result) -> str:
    """Return the URI, cut to its scheme if long: numpy stores all texts at the longest's length."""
    uri = result.image.uri if result.image else ""
    return uri if len(uri) <= _MAX_URI_CHARS else uri.partition(":")[0] + ":"


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, and rename it to `path` after the body; remove it on an error."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
