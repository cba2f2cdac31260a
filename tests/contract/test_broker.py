"""What the consumer relies on a broker for, and where the embedded broker is not Kafka.

Each test runs on both. A test that is skipped on the embedded broker names what that one lacks, so
the skips of this file are the list; examples/broker/README.md says the same in prose.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest
from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata

from tests.conftest import Broker, Topics, create_topics

pytestmark = pytest.mark.integration

LOG_APPEND_TIME = 1
LONG_AGO_MS = 1_000_000_000_000  # 2001
METADATA_LIMIT = 4096  # Kafka's offset.metadata.max.bytes
PATIENCE_SECONDS = 20

Producers = Callable[..., Awaitable[AIOKafkaProducer]]


@pytest.fixture
async def producers(broker: Broker) -> AsyncIterator[Producers]:
    """Start producers of `broker`; all are stopped at the end, those that were fenced too."""
    started: list[AIOKafkaProducer] = []

    async def start(**settings: object) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, **settings)
        started.append(producer)
        await producer.start()
        return producer

    yield start
    for producer in started:
        with suppress(KafkaError):  # of one that was fenced, which its test is about
            await producer.stop()


async def test_open_transaction_is_invisible_until_it_commits(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """A read_committed reader sees nothing of a transaction before the commit, and all after."""
    producer = await producers(transactional_id=topics.results)
    await producer.begin_transaction()
    await producer.send_and_wait(topics.results, b"one")

    before = await committed_records(broker, topics.results)
    await producer.commit_transaction()
    after = await committed_records(broker, topics.results)

    assert before == []
    assert [record.value for record in after] == [b"one"]


async def test_aborted_transaction_is_never_visible(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """Records of an aborted transaction are passed over, and those behind them are read."""
    producer = await producers(transactional_id=topics.results)
    await producer.begin_transaction()
    await producer.send_and_wait(topics.results, b"aborted")
    await producer.abort_transaction()
    async with producer.transaction():
        await producer.send_and_wait(topics.results, b"committed")

    records = await committed_records(broker, topics.results)

    assert [record.value for record in records] == [b"committed"]


async def test_zombie_with_the_same_transactional_id_is_refused(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """Once a second producer starts under the id, the first one commits nothing more."""
    zombie = await producers(transactional_id=topics.results)
    await zombie.begin_transaction()
    await zombie.send_and_wait(topics.results, b"before the new owner")
    owner = await producers(transactional_id=topics.results)

    with pytest.raises(KafkaError):
        await zombie.commit_transaction()

    async with owner.transaction():
        await owner.send_and_wait(topics.results, b"owner")
    records = await committed_records(broker, topics.results)
    assert [record.value for record in records] == [b"owner"]


async def test_offsets_and_their_metadata_commit_with_the_transaction(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """Offsets with 4,000 bytes of metadata are there for the next owner, as they were sent.

    Not for anybody at once: a commit is answered before its markers are written. What waits for
    them is the start of the next producer of that id, and so a worker reads its position after it.
    """
    producer = await producers(transactional_id=topics.results)
    position = OffsetAndMetadata(7, "m" * 4000)
    partition = TopicPartition(topics.ingest, 0)

    async with producer.transaction():
        await producer.send_offsets_to_transaction({partition: position}, group_id(topics))

    await producers(transactional_id=topics.results)
    assert await committed_offsets(broker, group_id(topics)) == {partition: position}


async def test_offsets_of_an_aborted_transaction_are_not_committed(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """The position stays where the last commit put it."""
    producer = await producers(transactional_id=topics.results)
    partition = TopicPartition(topics.ingest, 0)
    async with producer.transaction():
        await producer.send_offsets_to_transaction({partition: 1}, group_id(topics))

    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({partition: 2}, group_id(topics))
    await producer.abort_transaction()

    await producers(transactional_id=topics.results)
    offsets = await committed_offsets(broker, group_id(topics))
    assert offsets == {partition: OffsetAndMetadata(1, "")}


async def test_metadata_over_the_limit_is_refused(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """Offset metadata over 4,096 bytes fails the transaction."""
    skip_on_embedded(broker, "takes offset metadata of any length; Kafka at most 4,096 bytes")
    producer = await producers(transactional_id=topics.results)
    position = OffsetAndMetadata(7, "m" * (METADATA_LIMIT + 1))

    await producer.begin_transaction()
    with pytest.raises(KafkaError):
        await producer.send_offsets_to_transaction(
            {TopicPartition(topics.ingest, 0): position}, group_id(topics)
        )

    assert await committed_offsets(broker, group_id(topics)) == {}


async def test_abandoned_transaction_is_aborted_after_its_timeout(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """A producer that goes silent holds readers back no longer than its timeout; its late commit
    is refused.
    """
    abandoned = await producers(transactional_id=topics.results, transaction_timeout_ms=1000)
    await abandoned.begin_transaction()
    await abandoned.send_and_wait(topics.results, b"abandoned")
    plain = await producers()
    await plain.send_and_wait(topics.results, b"behind it")

    async with committed_reader(broker) as consumer, asyncio.timeout(PATIENCE_SECONDS):
        consumer.assign([TopicPartition(topics.results, 0)])
        first = await consumer.getone()

    assert first.value == b"behind it"
    with pytest.raises(KafkaError):
        await abandoned.commit_transaction()


async def test_log_append_time_is_applied(
    broker: Broker, topics: Topics, producers: Producers
) -> None:
    """On such a topic the broker's time replaces the producer's, and the record says so."""
    skip_on_embedded(broker, "keeps the producer's time (CreateTime) on a LogAppendTime topic")
    producer = await producers()

    await producer.send_and_wait(topics.ingest, b"one", timestamp_ms=LONG_AGO_MS)

    [record] = await committed_records(broker, topics.ingest)
    assert record.timestamp_type == LOG_APPEND_TIME
    assert record.timestamp > LONG_AGO_MS


async def test_max_message_bytes_holds(broker: Broker, producers: Producers) -> None:
    """A record larger than the topic allows is refused, and a smaller one is taken."""
    topic = f"small.{uuid4().hex[:12]}"
    await create_topics(
        broker.bootstrap, NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "2000"})
    )
    producer = await producers()

    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(topic, b"x" * 4000)
    await producer.send_and_wait(topic, b"x" * 1000)

    [record] = await committed_records(broker, topic)
    assert record.value == b"x" * 1000


async def test_topic_that_unpacks_takes_no_bomb(broker: Broker, producers: Producers) -> None:
    """A few kilobytes that unpack to more than it allows are refused; gzip as such is not."""
    skip_on_embedded(broker, "keeps records compressed whatever the topic says")
    topic = f"unpacked.{uuid4().hex[:12]}"
    configs = {"compression.type": "uncompressed", "max.message.bytes": "100000"}
    await create_topics(broker.bootstrap, NewTopic(topic, 1, 1, topic_configs=configs))
    producer = await producers(compression_type="gzip")

    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(topic, b"x" * 500_000)
    await producer.send_and_wait(topic, b"x" * 50_000)

    [record] = await committed_records(broker, topic)
    assert record.value == b"x" * 50_000


async def test_static_member_comes_back_without_a_rebalance(broker: Broker) -> None:
    """A member with an instance id gets its partitions again, and the others keep theirs."""
    topic = f"shared.{uuid4().hex[:12]}"
    await create_topics(broker.bootstrap, NewTopic(topic, 2, 1))
    other_moves, first_moves, second_moves = Moves(), Moves(), Moves()

    async with member(broker, topic, "other", other_moves) as other:
        async with member(broker, topic, "restarted", first_moves):
            await first_moves.until_assigned()
            await other_moves.until_shared()
            held = first_moves.partitions
        moves_before = other_moves.count
        async with member(broker, topic, "restarted", second_moves):
            await second_moves.until_assigned()

            assert second_moves.partitions == held
            assert other.assignment() == other_moves.partitions
    assert other_moves.count == moves_before


class Moves(ConsumerRebalanceListener):
    """Counts the assignments of one member, and keeps the last."""

    def __init__(self) -> None:
        self.count = 0
        self.partitions: frozenset[TopicPartition] = frozenset()
        self._changed = asyncio.Condition()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing: an assignment follows."""

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        async with self._changed:
            self.count += 1
            self.partitions = frozenset(assigned)
            self._changed.notify_all()

    async def until_assigned(self) -> None:
        await self._until(lambda: len(self.partitions) > 0)

    async def until_shared(self) -> None:
        """Wait until this member holds one of the two partitions."""
        await self._until(lambda: len(self.partitions) == 1)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(holds)


@asynccontextmanager
async def member(
    broker: Broker, topic: str, instance_id: str, moves: Moves
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        group_id=f"group.{topic}",
        group_instance_id=instance_id,
        session_timeout_ms=20_000,
        heartbeat_interval_ms=200,
    )
    consumer.subscribe([topic], listener=moves)
    async with consumer:
        yield consumer


def committed_reader(broker: Broker) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )


async def committed_records(
    broker: Broker, topic: str
) -> list["ConsumerRecord[bytes | None, bytes | None]"]:
    """Return what a read_committed reader sees of partition 0, up to the last stable offset."""
    partition = TopicPartition(topic, 0)
    records = []
    async with committed_reader(broker) as consumer, asyncio.timeout(PATIENCE_SECONDS):
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(partition, timeout_ms=100)
            records += batches.get(partition, [])
    return records


async def committed_offsets(broker: Broker, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        offsets: dict[TopicPartition, OffsetAndMetadata]
        offsets = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return offsets


def group_id(topics: Topics) -> str:
    return f"group.{topics.ingest}"


def skip_on_embedded(broker: Broker, lack: str) -> None:
    if broker.name == "embedded":
        pytest.skip(f"the embedded broker {lack}")
