"""The offset from which a partition is read.

    no committed position ───────────► BEGIN_AT, committed at once; else the log's start
    position within the log ─────────► the position
    position below the log's start ──► the log's start; the deleted records are counted and logged
    position above the log's end ────► the process ends: the topic was re-created or lost records

Invariant: no record is skipped in silence. So aiokafka may not reset an offset by itself
(`auto_offset_reset="none"`), and an offset that is deleted between two fetches comes here too.
"""

from collections.abc import Mapping

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.broker.beginnings import Beginnings
from consumer.partition.offsets import undone_below
from consumer.partition.worker import Commit
from imagelane.exits import ExitCode, FatalError
from imagelane.position import Position

log = structlog.get_logger()


class StartOffsets:
    """The start offsets of a group; `deleted_unread` counts records deleted before a read."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        beginnings: Beginnings,
        *,
        group_id: str,
        look_seconds: float,
    ) -> None:
        """Prepare; `look_seconds` bounds the reading of results for one partition."""
        self._consumer = consumer
        self._beginnings = beginnings
        self._group_id = group_id
        self._look_seconds = look_seconds
        self.deleted_unread = 0

    async def begin(self, partition: TopicPartition, commit: Commit) -> Position:
        """Return where to begin without a position: at the start, or where `BEGIN_AT` says.

        The offset of `BEGIN_AT` is committed at once, so that the setting takes effect once.
        """
        at = await self._beginnings.of(partition, self._look_seconds)
        start, end = await self._edges(partition)
        if at is None:
            return Position(offset=start)
        edges = {"earliest": start, "latest": end}
        position = Position.up_to(at if isinstance(at, int) else edges[at])
        await commit([], position)
        return position

    async def first_offset(self, partition: TopicPartition, position: Position) -> int:
        """Return the position's offset, or the log's start if that is higher.

        Raises:
            FatalError: `TOPIC`: the log ends below the position.
        """
        start, end = await self._edges(partition)
        if position.offset > end:
            raise FatalError(
                ExitCode.TOPIC,
                f"topic: group {self._group_id} is at offset {position.offset} of "
                f"{partition.topic}-{partition.partition}, which ends at {end}: the log lost "
                "records or was made anew; reset the group's offsets with kafka-consumer-groups.sh",
            )
        if lost := undone_below(position, start):
            self.deleted_unread += lost
            log.error(
                "records were deleted unread",
                **partition._asdict(),
                records=lost,
                first_offset=position.offset,
                last_offset=start - 1,
            )
        return max(position.offset, start)

    async def pass_deleted(self, fetched: Mapping[TopicPartition, int]) -> None:
        """Seek to the log's start where it has passed an offset that was to be fetched."""
        for partition, offset in fetched.items():
            first = await self.first_offset(partition, Position(offset=offset))
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, first)

    async def _edges(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the offset of the log's first record, and the one behind its last stable one."""
        start = (await self._consumer.beginning_offsets([partition]))[partition]
        return start, (await self._consumer.end_offsets([partition]))[partition]
