"""Members of a consumer group, and what a test publishes and reads beside them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from consumer.broker.group import KafkaStream
from consumer.partition.offsets import PartitionId
from consumer.partition.worker import Commit, History
from imagelane.position import Position
from schemas import Record
from tests.conftest import Broker

PATIENCE_SECONDS = 30


class Recorder:
    """Workers that only remember what was opened and closed."""

    def __init__(self) -> None:
        self.positions: dict[PartitionId, Position] = {}
        self.commits: dict[PartitionId, Commit] = {}
        self.histories: dict[PartitionId, History] = {}
        self.closed = 0

    def open(
        self, partition: PartitionId, position: Position, commit: Commit, history: History
    ) -> None:
        self.histories[partition] = history
        self.positions[partition], self.commits[partition] = position, commit

    async def close(self) -> None:
        self.closed += 1


class Member:
    """One consumer process's stream, with its workers; most tests use one partition of it."""

    def __init__(self, stream: KafkaStream, workers: Recorder, topic: str) -> None:
        self.stream, self.workers = stream, workers
        self.partition: PartitionId = (topic, 0)

    @property
    def commit(self) -> Commit:
        """What commits for the partition."""
        return self.workers.commits[self.partition]

    @property
    def history(self) -> Callable[[Callable[[Record], Any]], Awaitable[Sequence[Any]]]:
        """What was before the partition's position."""
        return self.workers.histories[self.partition]

    async def poll(self, count: int, room: int = 100) -> list[Record]:
        """Poll until `count` records came."""
        records: list[Record] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(records) < count:
                rooms = dict.fromkeys(self.workers.commits, room)
                records += await self.stream.poll(rooms, 0.05)
        return records

    async def leave(self) -> None:
        """Leave the group."""
        await self.stream.__aexit__(None, None, None)

    async def assigned(self, topic: str | None = None) -> Position:
        """Poll until the partition, or that of another topic, is ours; return where it begins."""
        partition = (topic or self.partition[0], 0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while partition not in self.workers.positions:
                await self.stream.poll({}, 0.05)
        return self.workers.positions[partition]


Join = Callable[..., Awaitable[Member]]


async def publish(broker: Broker, topic: str, count: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for number in range(count):
            await producer.send_and_wait(topic, b"%d" % number, key=b"k", headers=[("h", b"v")])


async def committed_values(broker: Broker, topic: str, number: int = 0) -> list[bytes | None]:
    """Read what a read_committed reader sees, from the start to the end of the topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, isolation_level="read_committed", group_id=None
    )
    async with consumer:
        partition = TopicPartition(topic, number)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes | None] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while await consumer.position(partition) < end and time.monotonic() < deadline:
            batches = await consumer.getmany(timeout_ms=100)
            values += [message.value for batch in batches.values() for message in batch]
        return values
