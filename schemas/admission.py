"""Whether a record may come in: verify first, then parse. Pure: the time is an argument."""

from dataclasses import dataclass
from typing import Final

from schemas.codec import check_size, decode_request
from schemas.codes import Code, Refused
from schemas.messages import Request
from schemas.records import Record, TimestampType
from schemas.signing import Verifier

MAX_HEADERS: Final = 64  # a record of 1 MiB can have 349,000, and each costs as much as a check


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How far the time of signing may lie from the clock it is compared with, in seconds.

    With LogAppendTime that clock is the broker's at the append, so that a backlog of hours stays
    honest. With CreateTime the record's time is the producer's claim, and only our own clock is
    left: hence a window of its own, and a longer one.
    """

    append_window_seconds: int = 300
    create_window_seconds: int = 86_400

    def clock(self, record: Record, now: float) -> tuple[float, int]:
        """Return the time to compare with, in Unix seconds, and the window around it."""
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
        Refused: with the first reason against it.
    """
    if record.unread:
        raise Refused(Code.TOO_LARGE, record.unread)
    # Before the signature is looked for, so that the search and the hashing are bounded too.
    if record.value is not None:
        check_size(record.value)
    if len(record.headers) > MAX_HEADERS:
        raise Refused(
            Code.TOO_LARGE, f"the record has {len(record.headers)} headers; at most {MAX_HEADERS}"
        )
    signed = verifier.verify(record.headers, record.key, record.value)
    freshness.check(record, signed.timestamp, now)
    if record.value is None:
        raise Refused(Code.MALFORMED, "the value is null")
    request = decode_request(record.value)
    if request.id != signed.id:
        raise Refused(
            Code.ID_MISMATCH, f"the value's id is {request.id}, the signature's {signed.id}"
        )
    return request
