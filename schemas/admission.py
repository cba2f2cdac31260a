"""Admission of records: verify first, then parse. Pure: time is an argument."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from schemas.codec import check_size, decode_request
from schemas.codes import Code, Refused
from schemas.messages import Request, Result
from schemas.records import Record, TimestampType
from schemas.signing import Signed, Verifier

M = TypeVar("M", Request, Result)

MAX_HEADERS: Final = 64  # a record of 1 MiB has room for 349,000, and each takes time


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How far the time of signing may lie from a reference time, in seconds.

    With LogAppendTime the reference is the broker's time of the append, so a record stays fresh in
    a backlog of hours. With CreateTime the record's time is the producer's claim; the reference is
    our own clock, and the longer window leaves time for the backlog.
    """

    append_window_seconds: int = 300
    create_window_seconds: int = 86_400

    def clock(self, record: Record, now: float) -> tuple[float, int]:
        """Return the reference time, in Unix seconds, and the window around it."""
        if record.timestamp_type is TimestampType.APPEND:
            return record.timestamp_ms / 1000, self.append_window_seconds
        return now, self.create_window_seconds

    def check(self, record: Record, signed_at: int, now: float) -> None:
        """Raise `Refused` with `stale` when the signature is too old or too far in the future."""
        clock, window = self.clock(record, now)
        distance = clock - signed_at
        if abs(distance) > window:
            side = "before" if distance > 0 else "after"
            name = "the append" if record.timestamp_type is TimestampType.APPEND else "now"
            raise Refused(
                Code.STALE, f"signed {abs(distance):.3f} s {side} {name}; at most {window} s"
            )


def admit(record: Record, *, verifier: Verifier, freshness: Freshness, now: float) -> Request:
    """Return the request of an authentic, fresh and well-formed record; `now` is Unix seconds.

    Raises:
        Refused: the first fault.
    """
    if record.unread:
        raise Refused(Code.TOO_LARGE, record.unread)
    # Before the verification, so that the search for headers and the hashing are bounded.
    if record.value is not None:
        check_size(record.value)
    if len(record.headers) > MAX_HEADERS:
        raise Refused(
            Code.TOO_LARGE, f"the record has {len(record.headers)} headers; at most {MAX_HEADERS}"
        )
    signed = verifier.verify(record.headers, record.key, record.value)
    freshness.check(record, signed.timestamp, now)
    return decode_signed(record.value, signed, decode_request)


def decode_signed(value: bytes | None, signed: Signed, decode: Callable[[bytes], M]) -> M:
    """Parse a value whose signature holds.

    Raises:
        Refused: the value is null or does not parse, or its id is not the signature's.
    """
    if value is None:
        raise Refused(Code.MALFORMED, "the value is null")
    message = decode(value)
    if message.id != signed.id:
        raise Refused(
            Code.ID_MISMATCH, f"the value's id is {message.id}, the signature's {signed.id}"
        )
    return message
