"""A worker is one partition: the records in flight, what of them is done, one commit at a time.

Nothing but the worker knows about offsets. Records finish in any order; each commit carries the
outcomes that came since the last one, and the position that they lead to.

While nothing proves that our secret is the right one, no record gets an outcome. The worker looks
ahead: records pass by and only the offset of the first is kept, so however many forgeries there are
take no memory and hide no good record. Proven, it goes back to that offset.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from consumer.outcome import ErrorOutcome, OkOutcome, Outcome, RefusedOutcome, RepeatOutcome
from consumer.partition.offsets import OffsetTracker
from consumer.record.replay_window import Seen
from imagelane.position import Position
from schemas import OutgoingRecord, Record, headers

_AT_ONCE: Final = 16  # results written in a row, some 25 µs each


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPolicy:
    """A commit takes what comes within `max_seconds` of its first outcome, up to a limit."""

    max_outcomes: int
    max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A record and its outcome; `seconds` from being taken."""

    record: Record
    outcome: Outcome
    seconds: float


Recall = Callable[[Record], Seen | None]
Write = Callable[[Record, Outcome, float], list[OutgoingRecord]]
Commit = Callable[[Sequence[OutgoingRecord], Position], Awaitable[None]]
History = Callable[[Recall], Awaitable[Sequence[Seen]]]


class RecordWork(Protocol):
    """What a worker has done with its records."""

    @property
    def secret_proven(self) -> bool:
        """Whether a record verified, of whatever partition."""

    def proves(self, record: Record) -> bool:
        """Tell whether our secret is proven, by this record if by none before it."""

    async def process(self, record: Record) -> Outcome:
        """Return the one outcome of a record."""

    def recall(self, record: Record) -> Seen | None:
        """Return what to remember of a record that has its outcome."""

    def remember(self, sightings: Sequence[Seen]) -> None:
        """Remember what was recalled, oldest first."""


class PartitionWorker:
    """The work on one partition, from its assignment to its revocation."""

    def __init__(
        self,
        *,
        completion: OffsetTracker,
        work: RecordWork,
        write: Write,
        commit: Commit,
        policy: CommitPolicy,
        records_in_flight: int,
    ) -> None:
        self._offsets = completion
        self._work = work
        self._write = write
        self._commit = commit
        self._policy = policy
        self._records_in_flight = records_in_flight
        self._log = structlog.get_logger().bind()  # made once, not anew for each record
        self.recalling = True  # it reads its history, and takes no record yet
        self.recalled = 0  # records of its history
        self.in_flight = 0  # taken and not yet committed
        self.committed = 0  # outcomes, since the worker was opened
        self._skipped_from: int | None = None  # the first record passed by while looking ahead
        self._working: dict[int, asyncio.Task[None]] = {}  # by offset
        self._deferred: list[Finished] = []  # done, too far above the watermark for the metadata
        self._finished: asyncio.Queue[Finished | None] = asyncio.Queue()  # None: no more will come

    @property
    def room(self) -> int:
        """How many more records it can take now."""
        if self.recalling:
            return 0
        return min(self._records_in_flight - self.in_flight, self._offsets.room)

    def backlog(self, *, position: int, end: int) -> int:
        """Return how many records are not committed, of a log that can be read up to `end`.

        `position` is where it is read next: behind what is no record, as a transaction's marker.
        """
        if self._skipped_from is not None:
            position = self._skipped_from
        return self.in_flight + self._offsets.untaken(position=position, end=end)

    def take(self, record: Record, tasks: asyncio.TaskGroup) -> None:
        """Begin the work on a record, unless a commit before this assignment has its outcome.

        While our secret is not proven, and until `rewind`, the record passes by and comes again.
        """
        if not self._work.proves(record) or self._skipped_from is not None:
            if self._skipped_from is None:
                self._skipped_from = record.offset
            return
        if not self._offsets.take(record.offset):
            if seen := self._work.recall(record):
                self._work.remember([seen])
            return
        self.in_flight += 1
        self._working[record.offset] = tasks.create_task(self._run_record(record))

    def rewind(self) -> int | None:
        """Return the offset to go back to, once, when our secret was proven after looking ahead.

        The caller has to seek to it before it hands over the next record.
        """
        if not self._work.secret_proven:
            return None
        offset, self._skipped_from = self._skipped_from, None
        return offset

    async def run(self, history: History) -> None:
        """Recall what was before, then commit outcomes until closed and done."""
        self._work.remember(await history(self._recall))
        self.recalling = False
        while batch := await self._batch():
            now = time.time()
            ready = self._mark_done(batch)
            if not ready:
                continue
            outputs: list[OutgoingRecord] = []
            for number, finished in enumerate(ready, 1):
                outputs += self._write(finished.record, finished.outcome, now)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)  # what waits for the loop meanwhile: the device
            await self._commit(outputs, self._offsets.position())
            self.in_flight -= len(ready)
            self.committed += len(ready)
            if self._log.is_enabled_for(logging.INFO):
                for finished in ready:
                    _log_outcome(self._log, finished)

    def _recall(self, record: Record) -> Seen | None:
        self.recalled += 1
        return self._work.recall(record)

    def _mark_done(self, batch: list[Finished]) -> list[Finished]:
        """Return what can be committed; the rest waits for the lowest record that is not done.

        Where the log has gaps, a batch of records can reach further than the metadata does.
        """
        self._deferred += batch
        ready: list[Finished] = []
        limit = self._offsets.offset_limit
        while fits := [f for f in self._deferred if f.record.offset < limit]:
            self._deferred = [f for f in self._deferred if f.record.offset >= limit]
            for finished in fits:
                self._offsets.done(finished.record.offset)
            ready += fits
            limit = self._offsets.offset_limit
        return ready

    async def close(self, finish_seconds: float) -> None:
        """Take no more, give what is in flight a while to finish, and let `run` end.

        What is not finished by then is given up: uncommitted, so that the next owner does it.
        """
        if self._working:
            _, late = await asyncio.wait(self._working.values(), timeout=finish_seconds)
            for task in late:
                task.cancel()
        self._finished.put_nowait(None)

    async def _run_record(self, record: Record) -> None:
        start = time.monotonic()
        try:
            outcome = await self._work.process(record)
        finally:
            del self._working[record.offset]
        seconds = time.monotonic() - start
        if isinstance(outcome, RefusedOutcome | RepeatOutcome):
            # The dead letter's part is in the outcome; a megabyte of each forgery must not wait.
            record = replace(record, key=None, value=None, headers=())
        self._finished.put_nowait(Finished(record=record, outcome=outcome, seconds=seconds))

    async def _batch(self) -> list[Finished]:
        """Return the outcomes of the next commit; none when there will be no more."""
        first = await self._finished.get()
        if first is None:
            return []
        batch = [first]
        try:
            async with asyncio.timeout(self._policy.max_seconds):
                # With nothing else in flight there is nothing to wait for.
                while len(batch) < min(self._policy.max_outcomes, self.in_flight):
                    finished = await self._finished.get()
                    if finished is None:
                        self._finished.put_nowait(None)
                        break
                    batch.append(finished)
        except TimeoutError:
            pass
        return batch


def _log_outcome(log: structlog.typing.FilteringBoundLogger, finished: Finished) -> None:
    record, outcome = finished.record, finished.outcome
    where: dict[str, object] = {"partition": record.partition, "offset": record.offset}
    # Those of a record that did not verify are gone by now.
    if (trace_id := headers.trace_id(record.headers)) is not None:
        where["trace_id"] = trace_id
    seconds = round(finished.seconds, 3)
    match outcome:
        case OkOutcome(request=request):
            log.info("record done", id=request.id, outcome="ok", seconds=seconds, **where)
        case ErrorOutcome(request=request, code=code, message=message):
            log.info(
                "record done",
                id=request.id,
                outcome="error",
                code=str(code),
                reason=message,
                seconds=seconds,
                **where,
            )
        case RefusedOutcome(code=code, reason=reason, kept=kept):
            # Above the rate of dead letters a line each would be a flood of its own.
            say = log.debug if kept.truncated else log.info
            say("record done", outcome="refused", code=str(code), reason=reason, **where)
        case RepeatOutcome(id=message_id):
            log.info("record done", id=message_id, outcome="repeat", **where)
