"""The worker of one partition: its records in flight, their outcomes, one commit at a time.

Records finish in any order. Each commit has the outcomes since the last one and the position that
they lead to.

Until one record proves that our secret is the right one, no record gets an outcome. The worker only
verifies records then, and keeps the offset of the first: forgeries take no memory and hide no good
record, however many there are. After the proof it reads again from that offset.
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
from consumer.record.replay_window import ReplayEntry
from imagelane.position import Position
from schemas import OutgoingRecord, Record, headers

_WRITES_IN_A_ROW: Final = 16  # some 25 µs each


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPolicy:
    """A commit waits `max_seconds` from its first outcome on, for `max_outcomes` at most."""

    max_outcomes: int
    max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A record and its outcome, `seconds` after it was taken."""

    record: Record
    outcome: Outcome
    seconds: float


Recall = Callable[[Record], ReplayEntry | None]
Write = Callable[[Record, Outcome, float], list[OutgoingRecord]]
Commit = Callable[[Sequence[OutgoingRecord], Position], Awaitable[None]]
History = Callable[[Recall], Awaitable[Sequence[ReplayEntry]]]


class RecordWork(Protocol):
    """The processing of a partition's records."""

    @property
    def secret_proven(self) -> bool:
        """Whether a record of any partition has verified."""

    def proves(self, record: Record) -> bool:
        """Return True if this record or an earlier one proves our secret."""

    async def process(self, record: Record) -> Outcome:
        """Return the one outcome of a record."""

    def recall(self, record: Record) -> ReplayEntry | None:
        """Return the replay entry of a record that has its outcome, if it verifies."""

    def remember(self, entries: Sequence[ReplayEntry]) -> None:
        """Add replay entries, oldest first."""


class PartitionWorker:
    """The work on one partition, from its assignment to its revocation."""

    def __init__(
        self,
        *,
        offsets: OffsetTracker,
        work: RecordWork,
        write: Write,
        commit: Commit,
        policy: CommitPolicy,
        records_in_flight: int,
    ) -> None:
        self._offsets = offsets
        self._work = work
        self._write = write
        self._commit = commit
        self._policy = policy
        self._records_in_flight = records_in_flight
        self._log = structlog.get_logger().bind()  # bound once, not for each record
        self.recalling = True  # while it reads the history, and takes no record
        self.recalled = 0  # records read of the history
        self.in_flight = 0  # records taken and not committed
        self.committed = 0  # outcomes, since the worker was opened
        self._skipped_from: int | None = None  # the first offset passed by before the proof
        self._working: dict[int, asyncio.Task[None]] = {}  # by offset
        self._deferred: list[Finished] = []  # too far above the watermark for the metadata
        self._finished: asyncio.Queue[Finished | None] = asyncio.Queue()  # None: the end

    @property
    def capacity(self) -> int:
        """How many more records the worker can take now."""
        if self.recalling:
            return 0
        return min(self._records_in_flight - self.in_flight, self._offsets.capacity)

    def backlog(self, *, position: int, end: int) -> int:
        """Return how many offsets below `end` are not committed.

        `position` is the next offset to read; transaction markers below it are not counted.
        """
        if self._skipped_from is not None:
            position = self._skipped_from
        return self.in_flight + self._offsets.untaken(position=position, end=end)

    def take(self, record: Record, tasks: asyncio.TaskGroup) -> None:
        """Start work on a record, unless a commit before this assignment has its outcome.

        Until our secret is proven and `rewind` was called, the record is skipped: it comes again.
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
        """Return the first skipped offset, once, after our secret was proven.

        The caller has to seek to it before it hands over the next record.
        """
        if not self._work.secret_proven:
            return None
        offset, self._skipped_from = self._skipped_from, None
        return offset

    async def run(self, history: History) -> None:
        """Read the history, then commit outcomes until the worker is closed."""
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
                if number % _WRITES_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # the device waits for the event loop
            await self._commit(outputs, self._offsets.position())
            self.in_flight -= len(ready)
            self.committed += len(ready)
            if self._log.is_enabled_for(logging.INFO):
                for finished in ready:
                    _log_outcome(self._log, finished)

    def _recall(self, record: Record) -> ReplayEntry | None:
        self.recalled += 1
        return self._work.recall(record)

    def _mark_done(self, batch: list[Finished]) -> list[Finished]:
        """Return the records that can be committed; the rest waits until the watermark rises.

        In a log with gaps, records in flight can reach further than the metadata.
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
        """Let the records in flight finish within the bound, cancel the rest, and end `run`.

        A cancelled record is not committed, so the next owner takes it.
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
            # The outcome has the dead letter's content: free the rest, up to 1 MB a forgery.
            record = replace(record, key=None, value=None, headers=())
        self._finished.put_nowait(Finished(record=record, outcome=outcome, seconds=seconds))

    async def _batch(self) -> list[Finished]:
        """Return the outcomes of the next commit; none at the end."""
        first = await self._finished.get()
        if first is None:
            return []
        batch = [first]
        try:
            async with asyncio.timeout(self._policy.max_seconds):
                # Without further records in flight no outcome would come.
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
    # Refused and repeated records have no headers any longer.
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
        case RefusedOutcome(code=code, reason=reason, content=content):
            # Above the rate of dead letters a line for each would flood the log.
            write_line = log.debug if content.truncated else log.info
            write_line("record done", outcome="refused", code=str(code), reason=reason, **where)
        case RepeatOutcome(id=message_id):
            log.info("record done", id=message_id, outcome="repeat", **where)
