"""The `publish` command: references in, one line for each outcome out, bounded in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import typer

from imagelane.terminal import say
from producer.cli.background import in_thread
from producer.cli.outcome_lines import outcome_line
from producer.cli.progress import Tally, display
from producer.cli.references import BadReference, Entry, to_request
from producer.ids import new_id
from producer.outcomes import Outcome
from producer.publisher import Keyed, Published, Publisher
from producer.settings import ProducerSettings
from schemas import Task

_OUTSTANDING: Final = 1000  # published and without an outcome, when waiting for it


async def publish_all(
    settings: ProducerSettings,
    references: Iterable[Entry],
    *,
    tasks: tuple[Task, ...],
    total: int | None,
    patience_seconds: float | None,
    as_json: bool,
) -> Tally:
    """Publish what the references stand for, and show what becomes of it.

    `patience_seconds`: wait for results until nothing at all came for so long; None: do not wait.

    Raises:
        FatalError: no broker answers, or a topic does not exist.
    """
    tally = Tally()
    async with Publisher(settings, results=patience_seconds is not None) as publisher:
        with display(tally, total=total) as show:
            run = _Run(
                publisher=publisher, tally=tally, show=show, patience=patience_seconds, json=as_json
            )
            await run.publish(references, tasks)
        if publisher.unverifiable_count:
            count = publisher.unverifiable_count
            say(f"{count} results ignored: their signature does not hold", err=True)
    return tally


@dataclass(slots=True, kw_only=True)
class _Run:
    publisher: Publisher
    tally: Tally
    show: Callable[[], None]
    patience: float | None
    json: bool
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_OUTSTANDING))
    heard: int = 0

    async def publish(self, references: Iterable[Entry], tasks: tuple[Task, ...]) -> None:
        requests = self._requests(references, tasks)
        try:
            async with asyncio.TaskGroup() as waits:
                async for published in self.publisher.publish_many(requests):
                    self.tally.published += 1
                    if self.patience is None:
                        self._end(done=True)
                    else:
                        await self.room.acquire()
                        waits.create_task(self._wait(published, self.patience))
                        self.show()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first fault is the cause of the others

    async def _requests(
        self, references: Iterable[Entry], tasks: tuple[Task, ...]
    ) -> AsyncIterator[Keyed]:
        async for entry in in_thread(references):
            try:
                yield to_request(entry, tasks, new_id)
            except BadReference as exc:
                say(str(exc), err=True)
                self._end(done=False)

    async def _wait(self, published: Published, patience: float) -> None:
        """Wait as long as others are heard of: a place far back in a long queue is no failure."""
        outcome = None
        while outcome is None:
            heard = self.heard
            try:
                outcome = await self.publisher.result(published, timeout_seconds=patience)
                self.heard += 1
            except TimeoutError:
                if self.heard == heard:
                    message = f"no result in {patience:g} s; is a consumer running?"
                    outcome = Outcome(id=published.id, status="timeout", message=message)
        typer.echo(outcome_line(outcome, published.request.subject, self.json))
        self._end(done=outcome.status == "ok")
        self.room.release()

    def _end(self, *, done: bool) -> None:
        self.tally.done += done
        self.tally.failed += not done
        self.show()
