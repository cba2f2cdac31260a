"""The ends of the partitions' logs, read from the brokers for the backlog."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from consumer.partition.offsets import PartitionId

ANSWER_SECONDS: Final = 1.0  # a scrape of the metrics must not wait for a missing broker


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """`position`: the next offset to read; `stable`: the last stable offset, where reading ends.

    `withheld`: how many offsets an open transaction held back at the last fetch.
    """

    position: int
    stable: int
    withheld: int


class LogEnds:
    """Reads the log ends of a consumer's partitions; without an answer the last ones hold."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._ends: dict[TopicPartition, int] = {}

    async def read(self, partitions: Collection[PartitionId]) -> dict[PartitionId, LogEnd]:
        """Return the ends of the assigned ones of these partitions that have a position."""
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # The consumer reads committed records, so these are the last stable offsets. A
                # fetch has them too, but paused partitions are not fetched.
                self._ends |= await self._consumer.end_offsets(asked)
        except (TimeoutError, KafkaError):
            pass
        found = {p: self._end(p) for p in asked if p in self._consumer.assignment()}
        return {(p.topic, p.partition): end for p, end in found.items() if end is not None}

    def _end(self, partition: TopicPartition) -> LogEnd | None:
        # Not `consumer.position()`: it waits until there is one.
        state = self._consumer._subscription.subscription.assignment.state_value(partition)
        if not state.has_valid_position:
            return None
        fetched = -1 if state.lso is None else state.lso  # -1: nothing was fetched yet
        withheld = max(0, state.highwater - fetched) if fetched >= 0 else 0
        stable = max(self._ends.get(partition, 0), fetched)
        return LogEnd(position=state.position, stable=stable, withheld=withheld)
