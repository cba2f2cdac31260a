"""What the workers rely on the stream for, the same on the embedded broker and on Apache Kafka."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from consumer.broker import history
from consumer.broker.cluster import Cluster
from consumer.broker.transactions import PartitionTransactions
from consumer.parts import kafka_client, open_cluster
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from imagelane.position import Position
from schemas import OutgoingRecord, Record
from tests.conftest import Broker, Topics, create_topics
from tests.contract.members import Join, committed_values, publish
from tests.odd_names import NoText, send_in_one_batch

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 30


def _output(topics: Topics, value: bytes) -> OutgoingRecord:
    return OutgoingRecord(topic=topics.results, key=b"k", value=value, headers=[("h", b"v")])


async def test_new_group_begins_at_the_start_of_the_log(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """What was published before the group ever ran is not skipped."""
    await publish(broker, topics.ingest, 3)
    member = await join()
    assert await member.assigned() == Position(offset=0)
    records = await member.poll(3)
    assert [record.value for record in records] == [b"0", b"1", b"2"]
    assert (records[0].key, list(records[0].headers)) == (b"k", [("h", b"v")])


async def test_next_member_goes_on_from_the_commit(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """Outputs and position of a commit are there together, the metadata with them."""
    await publish(broker, topics.ingest, 3)
    first = await join()
    await first.poll(3)
    position = Position(offset=1, metadata="il1:whatever")
    await first.commit([_output(topics, b"a"), _output(topics, b"b")], position)
    await first.leave()
    second = await join()
    assert await second.assigned() == position
    assert [record.value for record in await second.poll(2)] == [b"1", b"2"]
    assert await committed_values(broker, topics.results) == [b"a", b"b"]


async def test_each_topic_has_partitions_of_its_own(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """Ingest and queries both have a partition 0: neither takes the other's place or position."""
    await publish(broker, topics.ingest, 3)
    await publish(broker, topics.queries, 2)
    first = await join()
    records = await first.poll(5)
    ingest, queries = (topics.ingest, 0), (topics.queries, 0)
    assert {(r.topic, r.partition, r.offset) for r in records} == {
        *((*ingest, offset) for offset in range(3)),
        *((*queries, offset) for offset in range(2)),
    }
    await first.workers.commits[ingest]([_output(topics, b"picture")], Position(offset=1))
    await first.workers.commits[queries]([_output(topics, b"text")], Position(offset=2))
    await first.workers.commits[ingest]([_output(topics, b"picture")], Position(offset=2))
    await first.leave()
    second = await join()
    assert [r.topic for r in await second.poll(1)] == [topics.ingest]
    async with asyncio.timeout(30):
        while len(second.workers.positions) < 2:  # they are opened one after the other
            await second.stream.poll({}, 0.05)
    assert second.workers.positions == {ingest: Position(offset=2), queries: Position(offset=2)}
    assert await committed_values(broker, topics.results) == [b"picture", b"text", b"picture"]


async def test_full_partition_holds_back_no_other(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """A backlog that has filled its window lets the queries through."""
    await publish(broker, topics.ingest, 3)
    member = await join()
    await member.poll(3)
    await member.assigned(topics.queries)
    await publish(broker, topics.queries, 2)
    rooms = {(topics.ingest, 0): 0, (topics.queries, 0): 1}
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(records) < 2:
            records += await member.stream.poll(rooms, 0.05)
    assert [record.topic for record in records] == [topics.queries] * 2


async def test_history_is_what_stands_before_the_position(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """The log itself tells the next owner what was there, and no record that is still to come."""
    await publish(broker, topics.ingest, 3)
    first = await join()
    await first.poll(3)
    await first.commit([], Position(offset=2))
    await first.leave()
    second = await join()
    await second.assigned()
    assert await second.history(lambda record: record.value) == [b"0", b"1"]


async def test_history_counts_what_verified(
    broker: Broker, topics: Topics, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgeries push nothing out: the log is read back until enough was recalled, in order."""
    monkeypatch.setattr(history, "MAX_VERIFIED", 2)
    monkeypatch.setattr(history, "CHUNK_OFFSETS", 3)
    await publish(broker, topics.ingest, 20)
    first = await join()
    await first.poll(20)
    await first.commit([], Position(offset=20))
    await first.leave()
    second = await join()
    await second.assigned()
    good = {b"1", b"3", b"4", b"12"}
    recalled = await second.history(lambda r: r.value if r.value in good else None)
    assert recalled == [b"3", b"4", b"12"]


async def test_history_looks_before_the_window_for_what_proves_the_secret(
    broker: Broker, topics: Topics, join: Join, settings: ConsumerSettings
) -> None:
    """After a quiet night nothing is left in the window: older records are seen, and no more."""
    await publish(broker, topics.ingest, 3)
    partition = TopicPartition(topics.ingest, 0)
    seen: list[bytes | None] = []

    def recall(record: Record) -> bytes | None:
        seen.append(record.value)
        return record.value

    client = kafka_client(settings)
    recalled = await history.read_back(client, partition, 3, -3600, recall)
    assert recalled == []
    assert seen == [b"0", b"1", b"2"]


async def test_partition_that_is_set_back_comes_again(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """From the offset on, and nothing that was fetched before in between."""
    await publish(broker, topics.ingest, 6)
    member = await join()
    assert [record.offset for record in await member.poll(4, room=4)] == [0, 1, 2, 3]
    member.stream.rewind({member.partition: 1})
    assert [record.offset for record in await member.poll(5)] == [1, 2, 3, 4, 5]


async def test_new_group_has_no_history(broker: Broker, topics: Topics, join: Join) -> None:
    """At the start of the log there is nothing to read back, and nothing to wait for."""
    member = await join()
    await member.assigned()
    assert await member.history(lambda record: record.value) == []


async def test_position_alone_can_be_committed(broker: Broker, topics: Topics, join: Join) -> None:
    """Outcomes that say nothing (repeats) still move the position."""
    await publish(broker, topics.ingest, 1)
    first = await join()
    await first.poll(1)
    await first.commit([], Position(offset=1))
    await first.leave()
    assert await (await join()).assigned() == Position(offset=1)


async def test_outputs_of_many_batches_go_where_their_keys_belong(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """More than a batch holds arrives whole, each record on the partition of Kafka's own choice."""
    spread = f"spread.{topics.results}"
    await create_topics(broker.bootstrap, NewTopic(spread, 3, 1))
    keys = [b"key-%d" % number for number in range(200)]
    outputs = [OutgoingRecord(topic=spread, key=k, value=k * 200, headers=[]) for k in keys]
    member = await join()
    await member.assigned()
    await member.commit(outputs, Position(offset=0))
    found = {}
    for partition in range(3):
        for value in await committed_values(broker, spread, partition):
            found[value] = partition
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for key in keys:
            sent = await producer.send_and_wait(spread, key=key, value=b"")
            assert found.pop(key * 200) == sent.partition
    assert not found


async def test_batches_are_as_small_as_the_topic_wants_them(
    broker: Broker, topics: Topics, join: Join, settings: ConsumerSettings
) -> None:
    """A topic whose limit holds one output and not ten gets them all, in several batches."""
    small = f"small.{topics.results}"
    limit = {"max.message.bytes": "2000"}
    await create_topics(broker.bootstrap, NewTopic(small, 1, 1, topic_configs=limit))
    member = await join(settings.model_copy(update={"results_topic": small}))
    await member.assigned()
    values = [b"%d" % number * 1000 for number in range(10)]
    outputs = [OutgoingRecord(topic=small, key=None, value=v, headers=[]) for v in values]
    await member.commit(outputs, Position(offset=0))
    assert await committed_values(broker, small) == values


async def test_output_with_neither_key_nor_value_is_written(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """The dead letter of an empty record is as empty, and still one."""
    member = await join()
    await member.assigned()
    letter = OutgoingRecord(topic=topics.dlq, key=None, value=None, headers=[("h", b"v")])
    await member.commit([letter], Position(offset=0))
    assert await committed_values(broker, topics.dlq) == [None]


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_header_name_that_is_no_text_stops_nothing(
    broker: Broker, topics: Topics, join: Join, compression: str | None
) -> None:
    """It is read with its odd bytes spelt out, in its place between good records."""
    records = [(b"a", "plain"), (b"b", NoText()), (b"c", "größe")]
    await send_in_one_batch(broker.bootstrap, topics.ingest, records, compression)
    member = await join()
    found = [(record.value, record.headers[0][0]) for record in await member.poll(3)]
    assert found == [(b"a", "plain"), (b"b", r"\xff\xfe"), (b"c", "größe")]


async def test_uncommitted_work_comes_again(broker: Broker, topics: Topics, join: Join) -> None:
    """A member that ends without a commit leaves everything to the next one."""
    await publish(broker, topics.ingest, 2)
    first = await join()
    await first.poll(2)
    await first.leave()
    second = await join()
    assert len(await second.poll(2)) == 2


async def test_poll_keeps_to_the_room(broker: Broker, topics: Topics, join: Join) -> None:
    """No more records come than there is room for, and none when there is none."""
    await publish(broker, topics.ingest, 5)
    member = await join()
    await member.assigned()
    assert len(await member.poll(1, room=2)) <= 2
    for _ in range(5):
        assert await member.stream.poll({member.partition: 0}, 0.05) == []
    assert await member.poll(1, room=1)


async def _lane_arguments(
    cluster: Cluster,
    settings: ConsumerSettings,
    partition: TopicPartition,
    committed: Callable[[], Awaitable[Position | None]],
) -> dict[str, Any]:
    _, *outputs = await cluster.topics()
    return {
        "group_id": settings.group_id,
        "partition": partition,
        "outputs": outputs,
        "client": kafka_client(settings),
        "timeout_seconds": settings.transaction_timeout_seconds,
        "committed": committed,
    }


async def test_former_owner_cannot_commit_beside_the_next(
    broker: Broker, topics: Topics, join: Join, settings: ConsumerSettings
) -> None:
    """Whoever opens a partition takes it: of two that hold it, one writes an outcome."""
    member = await join()
    await member.assigned()
    former = member.commit
    async with open_cluster(settings) as cluster:
        partition = TopicPartition(topics.ingest, 0)
        committed = partial(cluster.committed, partition)
        taker = PartitionTransactions(
            **await _lane_arguments(cluster, settings, partition, committed)
        )
        await taker.start()
        if broker.name == "apache":  # the embedded broker has no name for a fenced producer
            with pytest.raises(FatalError) as caught:
                await former([_output(topics, b"former")], Position(offset=1))
            assert caught.value.code is ExitCode.FENCED
        await asyncio.gather(
            former([_output(topics, b"former")], Position(offset=1)),
            taker.commit([_output(topics, b"taker")], Position(offset=1)),
            return_exceptions=True,
        )
        await taker.stop()
    assert len(await committed_values(broker, topics.results)) == 1


class Doubtful(PartitionTransactions):
    """The first commit is done and its answer is lost; then the position cannot be read at once."""

    doubts, misses = 1, 1

    async def _transaction(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        await super()._transaction(outputs, position)
        if self.doubts:
            self.doubts -= 1
            raise TimeoutError("no answer, says the test")


async def test_nothing_is_written_again_before_the_position_is_read(
    broker: Broker, topics: Topics, settings: ConsumerSettings
) -> None:
    """A doubt stays one until the position settles it, however often it cannot be read."""
    async with open_cluster(settings) as cluster:
        partition = TopicPartition(topics.ingest, 0)

        async def committed() -> Position | None:
            if not worker.doubts and worker.misses:
                worker.misses -= 1
                raise KafkaError("no coordinator, says the test")
            return await cluster.committed(partition)

        worker = Doubtful(**await _lane_arguments(cluster, settings, partition, committed))
        await worker.start()
        await worker.commit([_output(topics, b"once")], Position(offset=1))
        await worker.stop()
    assert await committed_values(broker, topics.results) == [b"once"]


async def test_second_member_takes_over_after_the_first_has_closed(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """On a rebalance the workers are closed before the partitions go."""
    await publish(broker, topics.ingest, 1)
    first = await join()
    await first.assigned()
    polling = asyncio.create_task(first.poll(1_000_000))
    second = await join()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not first.workers.closed:
            await second.stream.poll({}, 0.05)
    polling.cancel()
