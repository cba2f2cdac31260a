"""Which offset a partition is read from: its position, what BEGIN_AT says, or the log's start."""

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
    """The start of each partition of a group; `deleted_unread` counts records the log lost."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        beginnings: Beginnings,
        *,
        group_id: str,
        look_seconds: float,
    ) -> None:
        """Prepare; results are read back for `look_seconds` at most."""
        self._consumer = consumer
        self._beginnings = beginnings
        self._group_id = group_id
        self._look_seconds = look_seconds
        self.deleted_unread = 0

    async def begin(self, partition: TopicPartition, commit: Commit) -> Position:
        """Return where to begin without a position: at the start, or where `BEGIN_AT` says.

        The latter is committed at once, so that it is said once.
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
        """Return where to read from: the position, or the log's start if that has passed it.

        Raises:
            FatalError: `TOPIC`: the log ends below the position. After a topic was made anew, the
                records up to it would be skipped in silence.
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
        """Go on where the log begins now, if it begins behind an offset that was to be fetched."""
        for partition, offset in fetched.items():
            first = await self.first_offset(partition, Position(offset=offset))
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, first)

    async def _edges(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the offset of the log's first record, and the one behind its last stable one."""
        start = (await self._consumer.beginning_offsets([partition]))[partition]
        return start, (await self._consumer.end_offsets([partition]))[partition]
