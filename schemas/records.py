"""Records of the log, free of any client library."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

Headers = Sequence[tuple[str, bytes]]


class TimestampType(IntEnum):
    """Who set a record's timestamp; the numbers are Kafka's own."""

    CREATE = 0  # the producer: a claim
    APPEND = 1  # the broker, when it appended the record


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record that was read. `timestamp_ms` is Unix time; `timestamp_type` says who set it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    timestamp_type: TimestampType
    key: bytes | None
    value: bytes | None
    headers: Headers
    unread: str | None = None  # why the log's bytes at this place are unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingRecord:
    """A record to write; the key picks the partition, the broker the offset."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
