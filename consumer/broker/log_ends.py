"""Where partitions end, for those who ask how much is left: asked of the brokers each time."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from consumer.partition.offsets import PartitionId

ANSWER_SECONDS: Final = 1.0  # who asks must not wait for a broker that is away


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """`position`: the next offset to be read; `stable`: where what can be read ends.

    `withheld`: how many offsets an open transaction held back at the last fetch.
    """

    position: int
    stable: int
    withheld: int


class LogEnds:
    """Looks at the partitions of a consumer; without an answer the last one stands."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._ends: dict[TopicPartition, int] = {}

    async def read(self, partitions: Collection[PartitionId]) -> dict[PartitionId, LogEnd]:
        """Return where each of these partitions ends that are assigned and have a position."""
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # At the isolation level of the consumer: the last stable offsets. A fetch tells
                # them too, but a partition that is paused is not fetched.
                self._ends |= await self._consumer.end_offsets(asked)
        except (TimeoutError, KafkaError):
            pass
        found = {p: self._end(p) for p in asked if p in self._consumer.assignment()}
        return {(p.topic, p.partition): end for p, end in found.items() if end is not None}

    def _end(self, partition: TopicPartition) -> LogEnd | None:
        # Not the consumer's own `position`, which waits for one.
        state = self._consumer._subscription.subscription.assignment.state_value(partition)
        if not state.has_valid_position:
            return None
        fetched, withheld = state.lso, 0
        if fetched is None or fetched < 0:  # nothing was fetched yet
            fetched = 0
        else:
            withheld = max(0, state.highwater - fetched)
        stable = max(self._ends.get(partition, 0), fetched)
        return LogEnd(position=state.position, stable=stable, withheld=withheld)
