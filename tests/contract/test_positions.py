"""A position that cannot be read is never "no position": one test an error code, on both brokers.

The answers are the brokers' own; a proxy puts the error code in, and takes out what an answer with
that code lacks.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from consumer.broker.cluster import Cluster
from consumer.broker.transactions import PartitionTransactions
from consumer.parts import kafka_client, open_cluster
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.errors import Unanswered
from imagelane.position import Position
from schemas import OutgoingRecord
from tests.altering_proxy import (
    FIND_COORDINATOR,
    OFFSET_FETCH,
    Alter,
    AlteringProxy,
    altering_proxy,
)
from tests.conftest import Broker, Topics

pytestmark = pytest.mark.integration

COMMITTED = Position(offset=12_345, metadata="il2:whatever")
RETRIABLE = [7, 13, 14, 15, 16, 88]
REFUSALS = {
    30: ExitCode.ACCESS,  # GROUP_AUTHORIZATION_FAILED
    -1: ExitCode.PROTOCOL,  # UNKNOWN_SERVER_ERROR
    24: ExitCode.PROTOCOL,  # INVALID_GROUP_ID
    35: ExitCode.PROTOCOL,  # UNSUPPORTED_VERSION
    42: ExitCode.PROTOCOL,  # INVALID_REQUEST
    113: ExitCode.PROTOCOL,  # one that aiokafka does not know
}


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[AlteringProxy]:
    """A proxy before the broker."""
    async with altering_proxy(broker.bootstrap) as made:
        yield made


@pytest.fixture
def settings(proxy: AlteringProxy, topics: Topics, secret: str) -> ConsumerSettings:
    """Settings of a consumer that reaches the broker by the proxy."""
    return ConsumerSettings.from_env(
        {
            "BOOTSTRAP_SERVERS": proxy.bootstrap,
            "SECRET_API_KEY": secret,
            "INGEST_TOPIC": topics.ingest,
            "QUERIES_TOPIC": topics.queries,
            "RESULTS_TOPIC": topics.results,
            "DLQ_TOPIC": topics.dlq,
            "GROUP_ID": f"group.{topics.ingest}",
            "TRANSACTION_TIMEOUT_SECONDS": "5",
        }
    )


@pytest.fixture
def partition(topics: Topics) -> TopicPartition:
    return TopicPartition(topics.ingest, 0)


@pytest.fixture
async def cluster(settings: ConsumerSettings) -> AsyncIterator[Cluster]:
    async with open_cluster(settings) as connected:
        yield connected


@pytest.fixture
async def committed(broker: Broker, settings: ConsumerSettings, partition: TopicPartition) -> None:
    """The group has a position."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id=settings.group_id, enable_auto_commit=False
    )
    async with consumer:
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(COMMITTED.offset, COMMITTED.metadata)})


def refuse(code: int, times: int = 1_000_000) -> Alter:
    """Give a top-level error instead of an answer, as a coordinator does that knows nothing."""
    left = [times]

    def alter(answer: dict[str, Any]) -> None:
        if left[0]:
            left[0] -= 1
            answer["error_code"], answer["topics"] = code, []

    return alter


def refuse_partition(code: int) -> Alter:
    """Give an error of the partition."""

    def alter(answer: dict[str, Any]) -> None:
        for topic in answer["topics"]:
            for partition in topic["partitions"]:
                partition |= {"error_code": code, "offset": -1}

    return alter


def forget(after: int = 0) -> Alter:
    """Answer without an error that there is no position, after so many good answers."""
    left = [after]

    def alter(answer: dict[str, Any]) -> None:
        if not left[0]:
            answer["topics"] = []
        left[0] -= bool(left[0])

    return alter


async def test_group_that_committed_nothing_has_no_position(
    cluster: Cluster, partition: TopicPartition
) -> None:
    """One broker answers an unknown group with an empty list, the other with an offset of -1."""
    assert await cluster.committed(partition) is None


@pytest.mark.usefixtures("committed")
async def test_other_partition_has_no_position(cluster: Cluster, topics: Topics) -> None:
    """The group is known, and has nothing of that partition."""
    assert await cluster.committed(TopicPartition(topics.ingest, 7)) is None


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("code", RETRIABLE)
async def test_error_that_heals_is_waited_for(
    proxy: AlteringProxy, cluster: Cluster, partition: TopicPartition, code: int
) -> None:
    """A coordinator that moves or loads: its group has a position all the while."""
    proxy.alter[OFFSET_FETCH] = refuse(code, times=2)

    assert await cluster.committed(partition) == COMMITTED

    assert proxy.altered[OFFSET_FETCH] == 3


@pytest.mark.usefixtures("committed")
async def test_wait_for_a_coordinator_is_bounded(
    proxy: AlteringProxy, settings: ConsumerSettings, partition: TopicPartition
) -> None:
    """The reason that is given is the broker's."""
    hasty = settings.model_copy(update={"transaction_timeout_seconds": 1.0})
    async with open_cluster(hasty) as cluster:
        proxy.alter[OFFSET_FETCH] = refuse(16)
        with pytest.raises(Unanswered, match=r"NOT_COORDINATOR \(16\)"):
            await cluster.committed(partition)


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(("code", "exit_code"), REFUSALS.items())
async def test_refusal_ends_with_its_own_code(
    proxy: AlteringProxy,
    cluster: Cluster,
    partition: TopicPartition,
    code: int,
    exit_code: ExitCode,
) -> None:
    """No retry heals it, so it is asked once."""
    proxy.alter[OFFSET_FETCH] = refuse(code)

    with pytest.raises(FatalError, match=rf"\({code}\)") as caught:
        await cluster.committed(partition)

    assert caught.value.code is exit_code
    assert proxy.altered[OFFSET_FETCH] == 1


@pytest.mark.usefixtures("committed")
async def test_partition_that_may_not_be_seen(
    proxy: AlteringProxy, cluster: Cluster, partition: TopicPartition
) -> None:
    """An error of the partition counts as one of the whole answer."""
    proxy.alter[OFFSET_FETCH] = refuse_partition(29)

    with pytest.raises(FatalError, match="TOPIC_AUTHORIZATION_FAILED") as caught:
        await cluster.committed(partition)

    assert caught.value.code is ExitCode.ACCESS


@pytest.mark.usefixtures("committed")
async def test_coordinator_that_is_not_found_at_once(
    proxy: AlteringProxy, cluster: Cluster, partition: TopicPartition
) -> None:
    """COORDINATOR_NOT_AVAILABLE while the offsets topic has no leader."""
    left = [2]

    def alter(answer: dict[str, Any]) -> None:
        if left[0]:
            left[0] -= 1
            answer["error_code"] = 15

    proxy.alter[FIND_COORDINATOR] = alter

    assert await cluster.committed(partition) == COMMITTED


@pytest.mark.usefixtures("committed")
async def test_answer_that_is_cut(
    proxy: AlteringProxy, cluster: Cluster, partition: TopicPartition
) -> None:
    """A connection that is lost before the answer came says nothing."""
    left = [2]

    def alter(_: dict[str, Any]) -> None:
        if left[0]:
            left[0] -= 1
            raise ConnectionResetError("cut, says the test")

    proxy.alter[OFFSET_FETCH] = alter

    assert await cluster.committed(partition) == COMMITTED


async def open_transactions(
    cluster: Cluster, settings: ConsumerSettings, partition: TopicPartition, **more: Any
) -> PartitionTransactions:
    _, *outputs = await cluster.topics()
    return PartitionTransactions(
        group_id=settings.group_id,
        partition=partition,
        outputs=outputs,
        client=kafka_client(settings),
        timeout_seconds=settings.transaction_timeout_seconds,
        committed=lambda: cluster.committed(partition),
        **more,
    )


@pytest.mark.usefixtures("committed")
async def test_owner_does_not_begin_anew_while_the_coordinator_moves(
    proxy: AlteringProxy, cluster: Cluster, settings: ConsumerSettings, partition: TopicPartition
) -> None:
    """The position that was there all along is the one that the worker starts from."""
    transactions = await open_transactions(cluster, settings, partition)
    proxy.alter[OFFSET_FETCH] = refuse(16, times=3)

    assert await transactions.start() == COMMITTED

    await transactions.stop()


class LosesTheAnswer(PartitionTransactions):
    """Each first try of a commit is done, and its answer is lost."""

    fails = 1

    async def _transaction(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        await super()._transaction(outputs, position)
        if self.fails:
            self.fails -= 1
            raise TimeoutError("no answer, says the test")


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("at", ["start", "doubt", "next assignment"])
async def test_position_that_vanishes_ends_the_process(
    proxy: AlteringProxy,
    cluster: Cluster,
    settings: ConsumerSettings,
    partition: TopicPartition,
    at: str,
) -> None:
    """Known once and then gone without an error: neither a beginning, nor a failed commit."""
    known = COMMITTED if at == "next assignment" else None
    opened = await open_transactions(cluster, settings, partition, known=known)
    opened.__class__ = LosesTheAnswer
    if at == "doubt":
        await opened.start()
    proxy.alter[OFFSET_FETCH] = forget(after=1 if at == "start" else 0)

    next_position = Position(offset=COMMITTED.offset + 1)
    asking = opened.commit([], next_position) if at == "doubt" else opened.start()
    with pytest.raises(FatalError, match=str(COMMITTED.offset)) as caught:
        await asking

    assert caught.value.code is ExitCode.POSITION
    await opened.stop()


@pytest.mark.usefixtures("committed")
async def test_doubt_is_settled_by_the_position_and_not_by_an_error(
    proxy: AlteringProxy, cluster: Cluster, settings: ConsumerSettings, partition: TopicPartition
) -> None:
    """The commit went through, the coordinator moves: nothing is written a second time."""
    opened = await open_transactions(cluster, settings, partition)
    opened.__class__ = LosesTheAnswer
    await opened.start()
    proxy.alter[OFFSET_FETCH] = refuse(16, times=3)
    position = Position(offset=COMMITTED.offset + 1)

    await opened.commit([], position)
    await opened.stop()

    assert opened.committed == await cluster.committed(partition) == position
