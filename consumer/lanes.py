"""The lanes of this process: opened when a partition is assigned, closed when it is revoked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import structlog

from consumer.completion import Completion, ForeignMetadata, Position
from consumer.lane import Commit, Lane
from schemas import Record

log = structlog.get_logger()

LAST_COMMIT_SECONDS: Final = 5

MakeLane = Callable[[Completion, Commit], Lane]


class OpenLanes:
    """Satisfies `consumer.stream.Lanes`; `tasks` runs the records and the commits of every lane."""

    def __init__(self, make: MakeLane, tasks: asyncio.TaskGroup, finish_seconds: float) -> None:
        self._make = make
        self._tasks = tasks
        self._finish_seconds = finish_seconds
        self._lanes: dict[int, Lane] = {}
        self._running: set[asyncio.Task[None]] = set()  # of lanes that are being closed, too
        self._stopping = False

    def room(self) -> Mapping[int, int]:
        """Return how many more records each partition's lane can take."""
        return {partition: lane.room for partition, lane in self._lanes.items()}

    @property
    def in_flight(self) -> int:
        """Records that are taken and not committed, in all lanes."""
        return sum(lane.in_flight for lane in self._lanes.values())

    @property
    def committed(self) -> int:
        """Outcomes that the open lanes have committed."""
        return sum(lane.committed for lane in self._lanes.values())

    def take(self, record: Record) -> None:
        """Give a record to its lane; without one it is dropped, and comes again after the seek."""
        if lane := self._lanes.get(record.partition):
            lane.take(record, self._tasks)

    def open(
        self, partition: int, position: Position, commit: Commit, history: AsyncIterator[Record]
    ) -> None:
        """Begin the work on a partition from a position, after a look at what was before it.

        Not while the process stops: the partition is given away again.
        """
        if self._stopping:
            return
        try:
            completion = Completion.from_position(position)
        except ForeignMetadata as exc:
            log.warning("commit metadata ignored", partition=partition, reason=str(exc))
            completion = Completion(position.offset)
        lane = self._make(completion, commit)
        self._lanes[partition] = lane
        running = self._tasks.create_task(lane.run(history))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Close the lanes, and open no more."""
        self._stopping = True
        await self.close()

    async def close(self) -> None:
        """Finish what is in flight within the bound, commit it, and give up the rest.

        Returns when no lane runs any longer, those that another call closes included: their
        producers are stopped next. A last commit that takes too long is left to the next owner.
        """
        closing, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.close(self._finish_seconds) for lane in closing))
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=LAST_COMMIT_SECONDS)
            for running in late:
                log.warning("lane given up", reason="its last commit or its history takes too long")
                running.cancel()
            if late:
                await asyncio.wait(late)
