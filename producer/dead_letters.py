"""Which dead letters go back to the ingest topic, and how. Pure: the time is an argument.

A signature is renewed where the old one holds and nowhere else: to sign a forgery would make it
authentic. A dead letter stays where it is, so one that was redriven can be selected again.
"""

import math
from dataclasses import dataclass

from schemas import Code, OutgoingRecord, Record, Refused, Signer, Stage, Verifier
from schemas.headers import (
    DLQ_CODE,
    DLQ_ORIGINAL_TIMESTAMP,
    DLQ_TRUNCATED,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Signs dead letters again. `verifier` and `signer` are those of the ingest topic."""

    verifier: Verifier
    signer: Signer
    ingest_topic: str
    replay_window_seconds: int

    def renew(self, letter: Record, now: float) -> tuple[str, OutgoingRecord]:
        """Return the id, and the record as it was but for a signature of `now` (Unix seconds).

        Raises:
            NotRedriven: it is cut, was not authentic, or would be dropped as a repeat.
        """
        if text_of(letter, DLQ_TRUNCATED) == "true":
            raise NotRedriven("truncated: only length and digest of its value are left")
        try:
            signed = self.verifier.verify(letter.headers, letter.key, letter.value)
        except Refused as refused:
            raise NotRedriven(f"never signed again, it is not authentic: {refused}") from refused
        if letter.value is None:
            raise NotRedriven("its value is null, no request")
        self._check_forgotten(letter, now)
        kept = [
            (name, value)
            for name, value in letter.headers
            if name not in (SIG_ID, SIG_TS, SIG) and not is_dead_letter_header(name)
        ]
        signature = self.signer.sign(
            id=signed.id, timestamp=int(now), key=letter.key, value=letter.value
        )
        return signed.id, OutgoingRecord(
            topic=self.ingest_topic,
            key=letter.key,
            value=letter.value,
            headers=[*kept, *signature],
        )

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
