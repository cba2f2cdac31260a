"""Publishing of references: one line for each outcome, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from imagelane.terminal import say
from producer.cli.background import in_thread
from producer.cli.outcome_lines import outcome_line
from producer.cli.progress import Tally, display
from producer.cli.receipts import PUBLISHED, Receipts, as_line, done_in, fingerprint, receipt
from producer.cli.references import BadReference, Entry, IdFrom, to_request
from producer.cli.settings import say_unverifiable
from producer.outcomes import Outcome
from producer.publisher import Published, Publisher
from producer.requests import Keyed
from producer.settings import ProducerSettings
from schemas import Task

_OUTSTANDING: Final = 1000  # published and without an outcome, with --wait


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPlan:
    """The options of `publish`.

    `patience_seconds`: wait for results until none came for so long; None: do not wait.
    """

    tasks: tuple[Task, ...]
    id_from: IdFrom
    patience_seconds: float | None = None
    as_json: bool = False
    with_ids: bool = False
    receipts: Path | None = None
    resume: Path | None = None


async def publish_all(
    settings: ProducerSettings, references: Iterable[Entry], plan: PublishPlan, total: int | None
) -> Tally:
    """Publish the references, and show the outcomes."""
    waiting = plan.patience_seconds is not None
    done = done_in(plan.resume, waiting=waiting) if plan.resume else frozenset()
    tally = Tally()
    async with Publisher(settings, results=waiting) as publisher:
        with Receipts(plan.receipts or plan.resume) as receipts:
            async with display(tally, total=total):
                run = _Run(
                    publisher=publisher, tally=tally, plan=plan, receipts=receipts, done=done
                )
                tally.ahead = run.ahead
                await run.publish(references)
        say_unverifiable(settings, publisher.unverifiable_count)
    return tally


@dataclass(slots=True, kw_only=True)
class _Run:
    publisher: Publisher
    tally: Tally
    plan: PublishPlan
    receipts: Receipts
    done: frozenset[str]
    outstanding: dict[int, Published] = field(default_factory=dict)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_OUTSTANDING))

    async def publish(self, references: Iterable[Entry]) -> None:
        try:
            async with asyncio.TaskGroup() as waits:
                async for published in self.publisher.publish_many(self._requests(references)):
                    self.tally.published += 1
                    self.receipts.write(published, PUBLISHED)
                    if self.plan.patience_seconds is None:
                        self._published(published)
                    else:
                        await self.room.acquire()
                        waits.create_task(self._wait(published, self.plan.patience_seconds))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first fault is the cause of the others

    def ahead(self) -> int | None:
        """Return how many records the queue has before the oldest of ours."""
        oldest = next(iter(self.outstanding.values()), None)
        return self.publisher.ahead_of(oldest) if oldest else None

    async def _requests(self, references: Iterable[Entry]) -> AsyncIterator[Keyed]:
        async for entry in in_thread(references):
            try:
                keyed = to_request(entry, self.plan.tasks, self.plan.id_from)
            except BadReference as exc:
                say(str(exc), err=True)
                self.tally.unpublished += 1
                self._end(done=False)
                continue
            if self.done and fingerprint(keyed.request) in self.done:
                self.tally.skipped += 1
            else:
                yield keyed

    def _published(self, published: Published) -> None:
        if self.plan.as_json:
            say(as_line(receipt(published, PUBLISHED)))
        self._end(done=True)

    async def _wait(self, published: Published, patience_seconds: float) -> None:
        """Wait as long as outcomes come: a long queue is no failure."""
        outcome, self.outstanding[id(published)] = None, published
        while outcome is None:
            count = self.publisher.outcome_count
            try:
                outcome = await self.publisher.result(published, timeout_seconds=patience_seconds)
            except TimeoutError:
                if self.publisher.outcome_count == count:
                    outcome = self._timed_out(published, patience_seconds)
        image = published.request.image
        uri = image.uri if image else None
        line = outcome_line(outcome, uri, as_json=self.plan.as_json, with_id=self.plan.with_ids)
        say(line, fit=not self.plan.as_json)
        self.receipts.write(published, outcome.status)
        del self.outstanding[id(published)]
        self._end(done=outcome.status == "ok")
        self.room.release()

    def _timed_out(self, published: Published, patience_seconds: float) -> Outcome:
        ahead = self.publisher.ahead_of(published)
        place = "" if ahead is None else f" with {ahead:,} records before it in the queue"
        message = (
            f"no result, and no other, in {patience_seconds:g} s{place}; is a consumer running?"
        )
        return Outcome(id=published.id, status="timeout", message=message)

    def _end(self, *, done: bool) -> None:
        self.tally.done += done
        self.tally.failed += not done
