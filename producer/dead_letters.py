"""Which dead letters go back to the ingest topic, and how. Pure: the time is an argument.

What goes back is the original, as it stands in the ingest topic at the place that a dead letter
names: anybody who can write to the topic of the dead letters can put one there. A signature is
renewed where the old one holds and is not too old, and nowhere else: to sign a forgery would make
it authentic. A dead letter stays where it is, and an id that has an outcome is passed over.
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
    """A dead letter that cannot go back, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters: all that meet each condition; no codes or no ids stand for any.

    The times are Unix seconds, of the dead letter: from `since` to before `until`.
    """

    codes: frozenset[Code] = frozenset()
    ids: frozenset[str] = frozenset()
    since: float = -math.inf
    until: float = math.inf

    def takes(self, letter: Record) -> bool:
        """Tell whether the dead letter is one of them."""
        return (
            (not self.codes or text_of(letter, DLQ_CODE) in self.codes)
            and (not self.ids or text_of(letter, SIG_ID) in self.ids)
            and self.since <= letter.timestamp_ms / 1000 < self.until
        )


class Place(NamedTuple):
    """Where a record stands in the ingest topic."""

    partition: int
    offset: int


def place_of_original(letter: Record, ingest_topic: str) -> Place:
    """Return the place of the record that a dead letter is made of.

    Raises:
        NotRedriven: it names none in the ingest topic.
    """
    try:
        place = Place(int(text_of(letter, DLQ_PARTITION)), int(text_of(letter, DLQ_OFFSET)))
    except ValueError as exc:
        raise NotRedriven(f"no dead letter of ours: {exc}") from exc
    if text_of(letter, DLQ_TOPIC) != ingest_topic:
        raise NotRedriven(f"not of {ingest_topic}")
    return place


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Signs originals again. `verifier` and `signer` are those of the ingest topic."""

    verifier: Verifier
    signer: Signer
    ingest_topic: str
    replay_window_seconds: int
    max_age_seconds: float

    def renew(
        self, letter: Record, original: Record | None, outcomes: frozenset[str], now: float
    ) -> tuple[str, OutgoingRecord]:
        """Return the id, and the original as it was but for a signature of `now` (Unix seconds).

        `outcomes` are the statuses of the results that there are of its id.

        Raises:
            NotRedriven: the original is gone, too old or not authentic, has an outcome, or would be
                dropped as a repeat.
        """
        if original is None:
            raise NotRedriven("its original is no longer in the ingest topic")
        try:
            signed = self.verifier.verify(original.headers, original.key, original.value)
        except Refused as refused:
            raise NotRedriven(f"never signed again, it is not authentic: {refused}") from refused
        if signed.id != text_of(letter, SIG_ID):
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
        self._check_outcome(letter, outcomes)
        self._check_forgotten(letter, now)
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

    def _check_outcome(self, letter: Record, outcomes: frozenset[str]) -> None:
        """Pass over what is done: what was refused, by any result of its id; else by an `ok`."""
        failed_once = text_of(letter, DLQ_STAGE) != Stage.ADMIT
        if outcomes - ({"error"} if failed_once else set()):
            raise NotRedriven("its id has an outcome already")

    def _check_forgotten(self, letter: Record, now: float) -> None:
        """Hold back what was admitted so lately that the consumer remembers its id."""
        try:
            code = Code(text_of(letter, DLQ_CODE))  # type: ignore[call-arg]  # it looks one up
            appended = int(text_of(letter, DLQ_ORIGINAL_TIMESTAMP)) / 1000
        except ValueError as exc:
            raise NotRedriven(f"no dead letter of ours: {exc}") from exc
        left_seconds = appended + self.replay_window_seconds - now
        if code.stage is not Stage.ADMIT and left_seconds >= 0:
            raise NotRedriven(f"too recent: again in {math.floor(left_seconds) + 1} s")


def text_of(letter: Record, name: str) -> str:
    """Return what the last header of this name says; nothing if there is none."""
    values = [value or b"" for header, value in letter.headers if header == name]
    return values[-1].decode(errors="replace") if values else ""
