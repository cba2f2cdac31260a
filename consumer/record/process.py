"""The way of one record, from top to bottom; its value is the outcome.

    admit ─► prepare (fetch, decode) ─► infer ─► outcome      an image
    admit ───────────────────────────► infer ─► outcome      a text

A verdict is an exception, and it becomes an outcome here and nowhere else. Any other exception is a
fault of ours: it passes through and ends the process, with nothing committed.
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
from consumer.record.dead_letters import DeadLetterRate, keep_refused
from consumer.record.replay_window import ReplayWindow, Seen
from consumer.record.secret_proof import Refusals, SecretProof
from schemas import Freshness, Record, Refused, Request, Task, TimingMs, Verifier, admit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An image that is ready for the models."""

    image: ImageFacts
    pixels: Mapping[Task, Pixels]


class Preparation(Protocol):
    """Turns a reference into pixels. Many at once; a slow one holds back nobody."""

    def prepare(self, request: Request) -> AbstractAsyncContextManager[Prepared]:
        """Open the pixels; raise `Failed` where there is no image to be had."""


class InferenceEngine(Protocol):
    """The device behind its one thread."""

    def expect_caption(self, *, urgent: bool) -> AbstractContextManager[None]:
        """Note that a caption is on its way, for as long as the context is open."""

    async def infer(self, pixels: Mapping[Task, Pixels], *, urgent: bool) -> Inference:
        """Run each task on its pixels; raise `Failed` for this image alone."""

    async def infer_text(self, text: str, *, urgent: bool) -> Inference:
        """Embed a text; raise `Failed` for this text alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What a record passes through. `now` gives Unix time in seconds, to compare with the log's.

    `clock` is the one that every stage takes its time by: nobody sets it back.
    Steps on the device for records of an `urgent` pipeline go before those of the others.
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
        """Whether a record verified, of whatever partition."""
        return self.proof.proven

    def proves(self, record: Record) -> bool:
        """Tell whether our secret is proven, by this record if by none before it.

        While it is not, the record may not be processed: a refusal may be our own fault.
        """
        if not self.proof.proven:
            verdict = _verdict(record, self, self.now())
            self.proof.look(verdict.code if isinstance(verdict, Refused) else None)
        return self.proof.proven

    def recall(self, record: Record) -> Seen | None:
        """Return what to remember of a record that has its outcome; it may prove our secret."""
        now = self.now()
        verdict = _verdict(record, self, now)
        if isinstance(verdict, Refused):
            self.proof.recall(verdict.code)
            return None
        self.proof.recall(None)
        return self.replay.sighting(verdict.id, record, now)

    def remember(self, sightings: Iterable[Seen]) -> None:
        """Remember what was recalled, oldest first."""
        self.replay.remember(sightings)

    async def process(self, record: Record) -> Outcome:
        """Return the one outcome of a record; our secret is proven."""
        return await process(record, self)


async def process(record: Record, pipeline: Pipeline) -> Outcome:
    """Return the one outcome of a record; our secret is proven."""
    start, now = pipeline.clock(), pipeline.now()
    request = _verdict(record, pipeline, now)
    if isinstance(request, Refused):
        kept = keep_refused(record, pipeline.dead_letter_rate, now)
        pipeline.refusals.note(request.code, truncated=kept.truncated)
        return RefusedOutcome(code=request.code, reason=request.reason, kept=kept)
    if pipeline.replay.is_repeat(pipeline.replay.sighting(request.id, record, now)):
        return RepeatOutcome(id=request.id)

    queue_ms = max(0.0, now * 1000 - record.timestamp_ms)
    captions, urgent = Task.CAPTION in request.tasks, pipeline.urgent
    with pipeline.inferences.expect_caption(urgent=urgent) if captions else nullcontext():
        prepared: Prepared | None = None
        try:
            if request.text is not None:
                inference = await pipeline.inferences.infer_text(request.text, urgent=urgent)
            else:
                async with pipeline.preparation.prepare(request) as prepared:
                    inference = await pipeline.inferences.infer(prepared.pixels, urgent=urgent)
        except Failed as failed:
            timing = TimingMs(
                queue=queue_ms,
                fetch=prepared.image.fetch_ms if prepared else failed.fetch_ms,
                decode=prepared.image.decode_ms if prepared else failed.decode_ms,
                total=(pipeline.clock() - start) * 1000,
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
        total_ms=(pipeline.clock() - start) * 1000,
    )


def _verdict(record: Record, pipeline: Pipeline, now: float) -> Request | Refused:
    try:
        return admit(record, verifier=pipeline.verifier, freshness=pipeline.freshness, now=now)
    except Refused as refused:
        return refused
