"""Header names that are not UTF-8: Kafka allows them, and aiokafka's reader stops at them for ever.

One such record would halt every reader of its topic: a partition of the consumer, `results`,
`redrive`, `publish --wait`. Here the bad bytes of a name are escaped (`\\xff`), and the record is
admitted or refused as any other.

A batch that cannot be unpacked within its bound is read as one record at its last offset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from imagelane.kafka.unpacking import CannotUnpack, bound_unpacking


def tolerate_header_names() -> None:
    """Replace aiokafka's reader in this process; aiokafka has no setting for it."""
    fetcher.MemoryRecords = _Records
    bound_unpacking()


class Unread(bytes):
    """The empty value of a record in place of an unreadable batch; `reason` is for a person."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class _UnreadRecord:
    """The fields that aiokafka reads of a record."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: Unread
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None


class _Records(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka has no types
    """The batches of a fetch."""

    def next_batch(self) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return batch and _Batch(batch, data)


class _Batch:
    """A batch that the slow parser continues where the fast one fails on a header name."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch, self._data = batch, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            for record in self._batch:
                yield record
                count += 1
        except UnicodeDecodeError:
            yield from islice(_parse_slowly(self._data), count, None)
        except CannotUnpack as exc:
            yield _unread(self._batch, str(exc))


def _unread(batch: Any, reason: str) -> _UnreadRecord:
    value = Unread()
    value.reason = reason
    # Batches of formats before Kafka 0.11 have no timestamp of their own.
    timestamp, kind = getattr(batch, "max_timestamp", 0), getattr(batch, "timestamp_type", 0)
    return _UnreadRecord(batch.next_offset - 1, timestamp, kind, value)


def _parse_slowly(data: memoryview) -> Iterator[Any]:
    batch = iter(_DefaultRecordBatchPy(data))
    batch._buffer = _Names(batch._buffer)
    yield from batch


class _Names(bytearray):
    """Bytes that decode with escapes; the parser decodes header names alone."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _Names(part) if isinstance(index, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
