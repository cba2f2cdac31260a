"""Header names that are no UTF-8: Kafka allows them, and aiokafka's reader stops at them for ever.

Whoever can write to a topic could halt its readers with one such record: a partition of the
consumer, `results`, `redrive`, and whoever waits for a result. With this the odd bytes of a name
are spelt out (`\\xff`), and the record is admitted or refused as any other.

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
    """Have every consumer of this process read them; there is no setting for it."""
    fetcher.MemoryRecords = _Records
    bound_unpacking()


class Unread(bytes):
    """The empty value of a record that stands for a batch; `reason` says why, for a person."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class _UnreadRecord:
    """What aiokafka takes for a record of a batch."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: Unread
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None


class _Records(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka's types are not seen
    """What a fetch brought, batch by batch."""

    def next_batch(self) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return batch and _Batch(batch, data)


class _Batch:
    """A batch that goes on with a slower and more patient parser where the fast one gives up."""

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
            yield from islice(_patiently(self._data), count, None)
        except CannotUnpack as exc:
            yield _unread(self._batch, str(exc))


def _unread(batch: Any, reason: str) -> _UnreadRecord:
    value = Unread()
    value.reason = reason
    # A batch of the formats before Kafka 0.11 does not say when, before its records are read.
    timestamp, kind = getattr(batch, "max_timestamp", 0), getattr(batch, "timestamp_type", 0)
    return _UnreadRecord(batch.next_offset - 1, timestamp, kind, value)


def _patiently(data: memoryview) -> Iterator[Any]:
    batch = iter(_DefaultRecordBatchPy(data))
    batch._buffer = _Names(batch._buffer)
    yield from batch


class _Names(bytearray):
    """Bytes whose parts decode whatever they are; the parser decodes nothing but header names."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _Names(part) if isinstance(index, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
