"""A worker is one partition: the records in flight, what of them is done, one commit at a time.

Nothing but the worker knows about offsets. Records finish in any order; each commit carries the
outcomes that came since the last one, and the position that they lead to.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from consumer.outcome import ErrorOutcome, OkOutcome, Outcome, RefusedOutcome, RepeatOutcome
from consumer.partition.offsets import OffsetTracker, Position
from schemas import OutgoingRecord, Record


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


Process = Callable[[Record], Awaitable[Outcome]]
Recall = Callable[[Record], None]
Write = Callable[[Record, Outcome, float], list[OutgoingRecord]]
Commit = Callable[[Sequence[OutgoingRecord], Position], Awaitable[None]]


class PartitionWorker:
    """The work on one partition, from its assignment to its revocation."""

    def __init__(
        self,
        *,
        completion: OffsetTracker,
        process: Process,
        recall: Recall,
        write: Write,
        commit: Commit,
        policy: CommitPolicy,
        records_in_flight: int,
    ) -> None:
        self._offsets = completion
        self._process = process
        self._recall = recall
        self._write = write
        self._commit = commit
        self._policy = policy
        self._records_in_flight = records_in_flight
        self._log = structlog.get_logger().bind()  # made once, not anew for each record
        self.recalling = True  # it reads its history, and takes no record yet
        self.recalled = 0  # records of its history
        self.in_flight = 0  # taken and not yet committed
        self.committed = 0  # outcomes, since the worker was opened
        self._working: dict[int, asyncio.Task[None]] = {}  # by offset
        self._deferred: list[Finished] = []  # done, and too far above the watermark to be told
        self._finished: asyncio.Queue[Finished | None] = asyncio.Queue()  # None: no more will come

    @property
    def room(self) -> int:
        """How many more records it can take now."""
        if self.recalling:
            return 0
        return min(self._records_in_flight - self.in_flight, self._offsets.room)

    def take(self, record: Record, tasks: asyncio.TaskGroup) -> None:
        """Begin the work on a record, unless a commit before this assignment has its outcome."""
        if not self._offsets.take(record.offset):
            self._recall(record)
            return
        self.in_flight += 1
        self._working[record.offset] = tasks.create_task(self._work(record))

    async def run(self, history: AsyncIterator[Record]) -> None:
        """Recall what was before, then commit outcomes until closed and done."""
        async for record in history:
            self._recall(record)
            self.recalled += 1
        self.recalling = False
        while batch := await self._batch():
            now = time.time()
            ready = self._mark_done(batch)
            if not ready:
                continue
            outputs = [out for f in ready for out in self._write(f.record, f.outcome, now)]
            await self._commit(outputs, self._offsets.position())
            self.in_flight -= len(ready)
            self.committed += len(ready)
            if self._log.is_enabled_for(logging.INFO):
                for finished in ready:
                    _log_outcome(self._log, finished)

    def _mark_done(self, batch: list[Finished]) -> list[Finished]:
        """Return what can be committed; the rest waits for the lowest record that is not done.

        Where the log has gaps, a batch of records can reach further than the metadata does.
        """
        self._deferred += batch
        ready: list[Finished] = []
        limit = self._offsets.limit
        while fits := [f for f in self._deferred if f.record.offset < limit]:
            self._deferred = [f for f in self._deferred if f.record.offset >= limit]
            for finished in fits:
                self._offsets.done(finished.record.offset)
            ready += fits
            limit = self._offsets.limit
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

    async def _work(self, record: Record) -> None:
        start = time.monotonic()
        try:
            outcome = await self._process(record)
        finally:
            del self._working[record.offset]
        seconds = time.monotonic() - start
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
    where = {"partition": record.partition, "offset": record.offset}
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
        case RefusedOutcome(code=code, reason=reason):
            log.info("record done", outcome="refused", code=str(code), reason=reason, **where)
        case RepeatOutcome(id=message_id):
            log.info("record done", id=message_id, outcome="repeat", **where)
