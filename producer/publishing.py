"""The `publish` command: references in, one line for each outcome out, bounded in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import typer

from producer.awaiting import Outcome
from producer.background import in_thread
from producer.ids import new_id
from producer.presentation import outcome_line, published_line
from producer.progress import Display, Tally, display
from producer.publisher import Keyed, Published, Publisher
from producer.references import BadReference, Defaults, Entry, to_request
from producer.settings import ProducerSettings

_OUTSTANDING: Final = 1000  # published and without an outcome, when waiting for it


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOptions:
    """How to publish. `timeout_seconds`: give up when nothing at all came for so long."""

    defaults: Defaults
    wait: bool
    timeout_seconds: float
    as_json: bool


async def publish_all(
    settings: ProducerSettings,
    references: Iterable[Entry],
    options: PublishOptions,
    *,
    total: int | None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Tally:
    """Publish what the references stand for, and show what becomes of it.

    Raises:
        Halt: no broker answers, or a topic does not exist.
    """
    started = monotonic()
    async with Publisher(settings, results=options.wait) as publisher:
        with display(total=total, started=started) as shown:
            run = _Run(publisher, options, shown, monotonic)
            await run.publish(references)
        typer.echo(run.tally.line(monotonic() - started), err=True)
        if publisher.unverifiable_count:
            count = publisher.unverifiable_count
            typer.echo(f"{count} results ignored: their signature does not hold", err=True)
    return run.tally


class _Run:
    def __init__(
        self,
        publisher: Publisher,
        options: PublishOptions,
        shown: Display,
        monotonic: Callable[[], float],
    ) -> None:
        self._publisher = publisher
        self._options = options
        self._shown = shown
        self._monotonic = monotonic
        self._room = asyncio.Semaphore(_OUTSTANDING)
        self._heard = 0
        self.tally = Tally()

    async def publish(self, references: Iterable[Entry]) -> None:
        try:
            async with asyncio.TaskGroup() as waits:
                async for published in self._publisher.publish_many(self._requests(references)):
                    self.tally.published += 1
                    if self._options.wait:
                        await self._room.acquire()
                        waits.create_task(self._wait(published))
                        self._shown.show(self.tally, self._monotonic())
                    else:
                        line = published_line(published) if self._options.as_json else None
                        self._end(line, done=True)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first fault is the cause of the others

    async def _requests(self, references: Iterable[Entry]) -> AsyncIterator[Keyed]:
        async for entry in in_thread(references):
            try:
                yield to_request(entry, self._options.defaults, new_id)
            except BadReference as exc:
                typer.echo(str(exc), err=True)
                self._end(None, done=False)

    async def _wait(self, published: Published) -> None:
        try:
            outcome = await self._outcome(published)
        except TimeoutError:
            message = f"no result in {self._options.timeout_seconds:g} s; is a consumer running?"
            outcome = Outcome(id=published.id, status="timeout", message=message)
        line = outcome_line(outcome, published.request.image.uri, self._options.as_json)
        self._end(line, done=outcome.status == "ok")
        self._room.release()

    async def _outcome(self, published: Published) -> Outcome:
        """Wait as long as others are heard of: a place far back in a long queue is no failure."""
        seconds = self._options.timeout_seconds
        while True:
            heard = self._heard
            try:
                outcome = await self._publisher.result(published, timeout_seconds=seconds)
            except TimeoutError:
                if self._heard == heard:
                    raise
            else:
                self._heard += 1
                return outcome

    def _end(self, line: str | None, *, done: bool) -> None:
        if line is not None:
            typer.echo(line)
        self.tally.done += done
        self.tally.failed += not done
        self._shown.show(self.tally, self._monotonic())
