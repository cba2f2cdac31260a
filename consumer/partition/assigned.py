"""The workers of the assigned partitions: opened at assignment, closed at revocation."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import structlog

from consumer.partition.offsets import OffsetTracker, PartitionId
from consumer.partition.worker import Commit, History, PartitionWorker
from imagelane.position import ForeignMetadata, Position
from schemas import Record

log = structlog.get_logger()

LAST_COMMIT_SECONDS: Final = 5

MakeWorker = Callable[[str, OffsetTracker, Commit], PartitionWorker]  # by topic


class PartitionWorkers:
    """The workers of `consumer.broker.group`; `tasks` runs their records and commits."""

    def __init__(self, make: MakeWorker, tasks: asyncio.TaskGroup, finish_seconds: float) -> None:
        self._make = make
        self._tasks = tasks
        self._finish_seconds = finish_seconds
        self._workers: dict[PartitionId, PartitionWorker] = {}
        # The tasks of all workers, of those being closed too.
        self._running: dict[asyncio.Task[None], PartitionWorker] = {}
        self._stopping = False

    def capacity(self) -> Mapping[PartitionId, int]:
        """Return how many more records each partition's worker can take."""
        return {partition: worker.capacity for partition, worker in self._workers.items()}

    @property
    def open_workers(self) -> Mapping[PartitionId, PartitionWorker]:
        """The open workers by partition."""
        return MappingProxyType(self._workers)

    def take(self, record: Record) -> None:
        """Hand a record to its worker; without one drop it: the seek makes it come again."""
        if worker := self._workers.get((record.topic, record.partition)):
            worker.take(record, self._tasks)

    def rewinds(self) -> Mapping[PartitionId, int]:
        """Return the offsets to read partitions from again, each of them once."""
        offsets = {partition: worker.rewind() for partition, worker in self._workers.items()}
        return {partition: offset for partition, offset in offsets.items() if offset is not None}

    def open(
        self, partition: PartitionId, position: Position, commit: Commit, history: History
    ) -> None:
        """Read the history before a position, then work on the partition from there."""
        if self._stopping:  # the process leaves the group
            return
        try:
            offsets = OffsetTracker.from_position(position)
        except ForeignMetadata as exc:
            log.warning("commit metadata ignored", partition=partition, reason=str(exc))
            offsets = OffsetTracker(position.offset)
        topic, _ = partition
        worker = self._make(topic, offsets, commit)
        self._workers[partition] = worker
        running = self._tasks.create_task(worker.run(history))
        self._running[running] = worker
        running.add_done_callback(self._running.pop)

    async def stop(self, finish_seconds: float, commit_seconds: float) -> None:
        """Close the workers within these bounds, and open no more."""
        self._stopping = True
        await self._close(finish_seconds, commit_seconds)

    async def close(self) -> None:
        """Finish and commit the records in flight within the bound, and give up the rest.

        Returns when no worker runs, those closed by another call included, since the caller stops
        their producers next. The next owner repeats a last commit that takes too long.
        """
        await self._close(self._finish_seconds, LAST_COMMIT_SECONDS)

    async def _close(self, finish_seconds: float, commit_seconds: float) -> None:
        end = time.monotonic() + finish_seconds + commit_seconds
        closing, self._workers = list(self._workers.values()), {}
        for running, worker in self._running.items():
            if worker.recalling:  # no record is in flight, and the history may be long
                running.cancel()
        await asyncio.gather(*(worker.close(finish_seconds) for worker in closing))
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=end - time.monotonic())
        for running in late:
            log.warning("partition given up", reason="its last commit takes too long")
            running.cancel()
        if late:
            await asyncio.wait(late, timeout=commit_seconds)
