"""The way of one record, from top to bottom; its value is the outcome.

    admit ─► prepare (fetch, decode) ─► infer ─► outcome      an image
    admit ───────────────────────────► infer ─► outcome      a text

A verdict is an exception, and it becomes an outcome here and nowhere else. Any other exception is a
fault of ours: it passes through and ends the process, with nothing committed.
"""

import time
from collections.abc import Callable, Mapping
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
from consumer.record.brake import Brake
from consumer.record.replay_window import ReplayWindow
from imagelane.exits import ExitCode, FatalError
from schemas import (
    Code,
    Freshness,
    Record,
    Refused,
    Request,
    Task,
    TimestampType,
    TimingMs,
    Verifier,
    admit,
)


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
    """What a record passes through. `now` gives Unix time in seconds.

    Steps on the device for records of an `urgent` pipeline go before those of the others.
    """

    verifier: Verifier
    freshness: Freshness
    brake: Brake
    replay: ReplayWindow
    preparation: Preparation
    inferences: InferenceEngine
    urgent: bool = False
    now: Callable[[], float] = time.time


async def process(record: Record, pipeline: Pipeline) -> Outcome:
    """Return the one outcome of a record.

    Raises:
        FatalError: it is one refusal too many.
    """
    start = pipeline.now()
    # No await before this is noted, so that the brake sees records in the order of the log.
    try:
        request = admit(record, verifier=pipeline.verifier, freshness=pipeline.freshness, now=start)
    except Refused as refused:
        if reason := pipeline.brake.note(refused=True):
            raise FatalError(ExitCode.BRAKE, _brake_message(reason, refused)) from refused
        return RefusedOutcome(code=refused.code, reason=refused.reason)
    pipeline.brake.note(refused=False)
    if pipeline.replay.is_repeat(request.id, record, start):
        return RepeatOutcome(id=request.id)

    queue_ms = max(0.0, start * 1000 - record.timestamp_ms)
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
                fetch=prepared.image.fetch_ms if prepared else None,
                decode=prepared.image.decode_ms if prepared else None,
                total=_since(start, pipeline.now()),
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
        total_ms=_since(start, pipeline.now()),
    )


def recall(record: Record, pipeline: Pipeline) -> None:
    """Remember a record whose outcome was committed before this assignment: its id, its refusal."""
    now = pipeline.now()
    try:
        request = admit(record, verifier=pipeline.verifier, freshness=pipeline.freshness, now=now)
    except Refused as refused:
        # What time alone explains (a key that was retired, a clock that went on) says nothing.
        aged = refused.code is Code.STALE and record.timestamp_type is TimestampType.CREATE
        if not aged and refused.code is not Code.UNKNOWN_KEY:
            pipeline.brake.recall(refused=True)
        return
    pipeline.brake.recall(refused=False)
    pipeline.replay.is_repeat(request.id, record, now)


def _brake_message(reason: str, last: Refused) -> str:
    return (
        f"brake: {reason}, the last as {last}; nothing of them is lost. Is SECRET_API_KEY the one "
        "that the ingestion service signs with? If they are forgeries, start with "
        "BRAKE_CONSECUTIVE=0 and BRAKE_SHARE=0 until they are dead letters"
    )


def _since(start: float, now: float) -> float:
    return max(0.0, now - start) * 1000
