"""The lanes of this process: opened when a partition is assigned, closed when it is revoked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import structlog

from consumer.completion import Completion, ForeignMetadata, Position
from consumer.lane import Commit, Lane
from schemas import Record

log = structlog.get_logger()

MakeLane = Callable[[Completion, Commit], Lane]


class OpenLanes:
    """Satisfies `consumer.stream.Lanes`; `tasks` runs the records and the commits of every lane."""

    def __init__(self, make: MakeLane, tasks: asyncio.TaskGroup, finish_seconds: float) -> None:
        self._make = make
        self._tasks = tasks
        self._finish_seconds = finish_seconds
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}

    def room(self) -> Mapping[int, int]:
        """Return how many more records each partition's lane can take."""
        return {partition: lane.room for partition, (lane, _) in self._lanes.items()}

    @property
    def in_flight(self) -> int:
        """Records that are taken and not committed, in all lanes."""
        return sum(lane.in_flight for lane, _ in self._lanes.values())

    @property
    def committed(self) -> int:
        """Outcomes that the open lanes have committed."""
        return sum(lane.committed for lane, _ in self._lanes.values())

    def take(self, record: Record) -> None:
        """Give a record to its lane; without one it is dropped, and comes again after the seek."""
        if opened := self._lanes.get(record.partition):
            opened[0].take(record, self._tasks)

    def open(
        self, partition: int, position: Position, commit: Commit, history: AsyncIterator[Record]
    ) -> None:
        """Begin the work on a partition from a position, after a look at what was before it."""
        try:
            completion = Completion.from_position(position)
        except ForeignMetadata as exc:
            log.warning("commit metadata ignored", partition=partition, reason=str(exc))
            completion = Completion(position.offset)
        lane = self._make(completion, commit)
        self._lanes[partition] = lane, self._tasks.create_task(lane.run(history))

    async def close(self) -> None:
        """Finish what is in flight within the bound, commit it, and give up the rest."""
        closing, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.close(self._finish_seconds) for lane, _ in closing))
        if closing:
            await asyncio.wait([running for _, running in closing])
