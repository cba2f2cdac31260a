"""Processes one record, from admission to its outcome.

    admit ─► prepare (fetch, decode) ─► infer ─► outcome      an image
    admit ───────────────────────────► infer ─► outcome      a text

A verdict about a record is an exception, `Refused` or `Failed`; only this file turns one into an
outcome. Any other exception is our fault and ends the process, with nothing committed.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from consumer.errors import Failed
from consumer.outcome import (
    ErrorOutcome,
    ImageFacts,
    Inference,
    OkOutcome,
    Outcome,
    RefusedOutcome,
    RepeatOutcome,
)
from consumer.pixels import Pixels
from consumer.record.dead_letters import DeadLetterRate, content_within_rate
from consumer.record.replay_window import ReplayEntry, ReplayWindow
from consumer.record.secret_proof import Refusals, SecretProof
from schemas import Freshness, Record, Refused, Request, Task, TimingMs, Verifier, admit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An image ready for the models."""

    image: ImageFacts
    pixels: Mapping[Task, Pixels]


class Preparation(Protocol):
    """Turns references into pixels, many at once; a slow one delays no other."""

    def prepare(self, request: Request) -> AbstractAsyncContextManager[Prepared]:
        """Open the pixels; raise `Failed` if there are none."""


class InferenceEngine(Protocol):
    """The models on the device."""

    def expect_caption(self, *, urgent: bool) -> AbstractContextManager[None]:
        """Announce a caption: the captioner loads, and stays while the context is open."""

    async def infer(self, pixels: Mapping[Task, Pixels], *, urgent: bool) -> Inference:
        """Run each task on its pixels; raise `Failed` if they fail for this image."""

    async def infer_text(self, text: str, *, urgent: bool) -> Inference:
        """Embed a text; raise `Failed` if that fails for this text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The stages of a topic's records; steps on the device for an `urgent` pipeline go first.

    `now` returns Unix time in seconds, to compare with the log's; `clock` is monotonic, for
    durations.
    """

    verifier: Verifier
    freshness: Freshness
    proof: SecretProof
    refusals: Refusals
    dead_letter_rate: DeadLetterRate
    replay: ReplayWindow
    preparation: Preparation
    inferences: InferenceEngine
    urgent: bool = False
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

    @property
    def secret_proven(self) -> bool:
        """Whether a record of any partition has verified."""
        return self.proof.proven

    def proves(self, record: Record) -> bool:
        """Return True if this record or an earlier one proves our secret.

        Otherwise the record may not be processed: its refusal may be our own fault.
        """
        if not self.proof.proven:
            verdict = self._verdict(record, self.now())
            self.proof.note(verdict.code if isinstance(verdict, Refused) else None)
        return self.proof.proven

    def recall(self, record: Record) -> ReplayEntry | None:
        """Return the replay entry of a record that has its outcome; it may prove our secret."""
        now = self.now()
        verdict = self._verdict(record, now)
        if isinstance(verdict, Refused):
            self.proof.note_history(verdict.code)
            return None
        self.proof.note_history(None)
        return self.replay.entry(verdict.id, record, now)

    def remember(self, entries: Iterable[ReplayEntry]) -> None:
        """Add replay entries, oldest first."""
        self.replay.remember(entries)

    async def process(self, record: Record) -> Outcome:
        """Return the one outcome of a record, after our secret was proven."""
        start, now = self.clock(), self.now()
        request = self._verdict(record, now)
        if isinstance(request, Refused):
            content = content_within_rate(record, self.dead_letter_rate, now)
            self.refusals.note(request.code, truncated=content.truncated)
            return RefusedOutcome(code=request.code, reason=request.reason, content=content)
        if self.replay.is_repeat(self.replay.entry(request.id, record, now)):
            return RepeatOutcome(id=request.id)

        queue_ms = max(0.0, now * 1000 - record.timestamp_ms)
        captions, urgent = Task.CAPTION in request.tasks, self.urgent
        with self.inferences.expect_caption(urgent=urgent) if captions else nullcontext():
            prepared: Prepared | None = None
            try:
                if request.text is not None:
                    inference = await self.inferences.infer_text(request.text, urgent=urgent)
                else:
                    async with self.preparation.prepare(request) as prepared:
                        inference = await self.inferences.infer(prepared.pixels, urgent=urgent)
            except Failed as failed:
                timing = TimingMs(
                    queue=queue_ms,
                    fetch=prepared.image.fetch_ms if prepared else failed.fetch_ms,
                    decode=prepared.image.decode_ms if prepared else failed.decode_ms,
                    total=(self.clock() - start) * 1000,
                )
                return ErrorOutcome(
                    request=request,
                    code=failed.code,
                    message=failed.message,
                    attempts=failed.attempts,
                    timing=timing,
                )
        return OkOutcome(
            request=request,
            image=prepared.image if prepared else None,
            inference=inference,
            queue_ms=queue_ms,
            total_ms=(self.clock() - start) * 1000,
        )

    def _verdict(self, record: Record, now: float) -> Request | Refused:
        try:
            return admit(record, verifier=self.verifier, freshness=self.freshness, now=now)
        except Refused as refused:
            return refused
