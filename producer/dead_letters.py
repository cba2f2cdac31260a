"""Which dead letters go back to the ingest topic, and how. Pure: time is an argument.

Anybody who can write to their topic can forge a dead letter, so the original goes back, read from
the ingest topic at the place that the dead letter names. It is signed again only if its signature
holds and is not too old: to sign a forgery would make it authentic. A dead letter stays in its
topic, and an id with an outcome is left out.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from schemas import Code, OutgoingRecord, Record, Refused, Signer, Stage, Verifier
from schemas.codec import MAX_VALUE_BYTES
from schemas.headers import (
    DLQ_CODE,
    DLQ_OFFSET,
    DLQ_ORIGINAL_TIMESTAMP,
    DLQ_PARTITION,
    DLQ_STAGE,
    DLQ_TOPIC,
    SIG,
    SIG_ID,
    SIG_TS,
    is_dead_letter_header,
)


class NotRedriven(Exception):
    """A dead letter that does not go back; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Conditions that a dead letter must all meet; an empty set of codes or ids means any.

    Its time, in Unix seconds, is from `since` to before `until`.
    """

    codes: frozenset[Code] = frozenset()
    ids: frozenset[str] = frozenset()
    since: float = -math.inf
    until: float = math.inf

    def takes(self, dead_letter: Record) -> bool:
        """Return whether the dead letter meets the conditions."""
        return (
            (not self.codes or text_of(dead_letter, DLQ_CODE) in self.codes)
            and (not self.ids or text_of(dead_letter, SIG_ID) in self.ids)
            and self.since <= dead_letter.timestamp_ms / 1000 < self.until
        )


class Place(NamedTuple):
    """A record's place in the log."""

    topic: str
    partition: int
    offset: int


def place_of_original(dead_letter: Record, ingest_topic: str) -> Place:
    """Return the place of a dead letter's original.

    Raises:
        NotRedriven: the dead letter names no place in the ingest topic.
    """
    try:
        place = named_place(dead_letter)
    except ValueError as exc:
        raise NotRedriven(f"no dead letter of ours: {exc}") from exc
    if place.topic != ingest_topic:
        raise NotRedriven(f"not of {ingest_topic}")
    return place


def named_place(dead_letter: Record) -> Place:
    """Return the place that a dead letter's headers name.

    Raises:
        ValueError: a header is missing or no number.
    """
    return Place(
        text_of(dead_letter, DLQ_TOPIC),
        int(text_of(dead_letter, DLQ_PARTITION)),
        int(text_of(dead_letter, DLQ_OFFSET)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Signs originals again. `verifier` and `signer` are the ingest topic's."""

    verifier: Verifier
    signer: Signer
    ingest_topic: str
    replay_window_seconds: int
    max_age_seconds: float

    def renew(
        self, dead_letter: Record, original: Record | None, outcomes: frozenset[str], now: float
    ) -> tuple[str, OutgoingRecord]:
        """Return the id, and the original with a signature of `now` (Unix seconds).

        `outcomes` are the statuses of the id's results.

        Raises:
            NotRedriven: the original is gone, too old or not authentic, its id has an outcome, or
                the consumer would drop it as a repeat.
        """
        if original is None:
            raise NotRedriven("its original is no longer in the ingest topic")
        try:
            signed = self.verifier.verify(original.headers, original.key, original.value)
        except Refused as refused:
            raise NotRedriven(f"never signed again, it is not authentic: {refused}") from refused
        if signed.id != text_of(dead_letter, SIG_ID):
            raise NotRedriven(f"its original has the id {signed.id}")
        if original.value is None:
            raise NotRedriven("its value is null, no request")
        if len(original.value) > MAX_VALUE_BYTES:
            raise NotRedriven(f"its value has {len(original.value)} bytes, and is refused again")
        if now - signed.timestamp > self.max_age_seconds:
            raise NotRedriven(
                f"signed {now - signed.timestamp:.0f} s ago; at most {self.max_age_seconds:g} s "
                "(REDRIVE_MAX_AGE_SECONDS)"
            )
        self._check_outcome(dead_letter, outcomes)
        self._check_replay_window(dead_letter, now)
        kept = [
            (name, value)
            for name, value in original.headers
            if name not in (SIG_ID, SIG_TS, SIG) and not is_dead_letter_header(name)
        ]
        signature = self.signer.sign(
            id=signed.id, timestamp=int(now), key=original.key, value=original.value
        )
        return signed.id, OutgoingRecord(
            topic=self.ingest_topic,
            key=original.key,
            value=original.value,
            headers=[*kept, *signature],
        )

    def _check_outcome(self, dead_letter: Record, outcomes: frozenset[str]) -> None:
        """Leave out a done id: any result ends a refused record, an `ok` alone a failed one."""
        failed = text_of(dead_letter, DLQ_STAGE) != Stage.ADMIT
        if outcomes - ({"error"} if failed else set()):
            raise NotRedriven("its id has an outcome already")

    def _check_replay_window(self, dead_letter: Record, now: float) -> None:
        """Leave out a record that was admitted lately: the consumer still remembers its id."""
        try:
            code = Code(text_of(dead_letter, DLQ_CODE))  # type: ignore[call-arg]  # it looks one up
            appended = int(text_of(dead_letter, DLQ_ORIGINAL_TIMESTAMP)) / 1000
        except ValueError as exc:
            raise NotRedriven(f"no dead letter of ours: {exc}") from exc
        left_seconds = appended + self.replay_window_seconds - now
        if code.stage is not Stage.ADMIT and left_seconds >= 0:
            raise NotRedriven(f"too recent: again in {math.floor(left_seconds) + 1} s")


def text_of(dead_letter: Record, name: str) -> str:
    """Return the text of the last header of this name; empty without one."""
    values = [value or b"" for header, value in dead_letter.headers if header == name]
    return values[-1].decode(errors="replace") if values else ""
