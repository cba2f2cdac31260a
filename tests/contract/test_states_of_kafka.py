"""Everyday states of Kafka: each ends with its own code and one line, or is waited for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from structlog.testing import capture_logs

from consumer.broker.cluster import CAREFUL_BATCH_BYTES
from consumer.broker.history import read_back
from consumer.parts import kafka_client, open_cluster
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from schemas import Record
from tests.altering_proxy import (
    DESCRIBE_CONFIGS,
    LIST_OFFSETS,
    METADATA,
    AlteringProxy,
    altering_proxy,
)
from tests.conftest import Broker, Topics
from tests.consumer_process import environment, run_consumer
from tests.containers import free_port
from tests.contract.members import PATIENCE_SECONDS, Join, publish

pytestmark = pytest.mark.integration


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[AlteringProxy]:
    """A proxy before the broker."""
    async with altering_proxy(broker.bootstrap) as made:
        yield made


@pytest.fixture
def proxied(settings: ConsumerSettings, proxy: AlteringProxy) -> ConsumerSettings:
    """Settings of a consumer that reaches the broker by the proxy."""
    return settings.model_copy(
        update={"bootstrap_servers": (proxy.bootstrap,), "broker_wait_seconds": 5.0}
    )


async def ended(proxy: AlteringProxy, topics: Topics, secret: str) -> tuple[int, str]:
    """Run a consumer by the proxy and return its exit code and what it said."""
    settings = environment(proxy.bootstrap, topics, secret)
    done = await asyncio.to_thread(run_consumer, settings)
    return done.returncode, done.stderr


async def test_advertised_address_that_cannot_be_reached(
    proxy: AlteringProxy, topics: Topics, secret: str
) -> None:
    """The bootstrap address answers, and names a node that nobody reaches from here."""
    proxy.advertised = ("127.0.0.1", free_port())

    code, said = await ended(proxy, topics, secret)

    assert code == ExitCode.BROKER
    assert f"at 127.0.0.1:{proxy.advertised[1]}" in said
    assert "Traceback" not in said


async def test_right_to_read_settings_of_a_topic_is_missing(
    proxy: AlteringProxy, proxied: ConsumerSettings, topics: Topics
) -> None:
    """Careful settings do instead, and a warning names the right."""

    def refuse(answer: dict[str, Any]) -> None:
        for resource in answer["resources"]:
            resource |= {"error_code": 29, "config_entries": []}

    proxy.alter[DESCRIBE_CONFIGS] = refuse
    async with open_cluster(proxied) as cluster:
        with capture_logs() as logs:
            ingest, *_ = await cluster.topics()

    assert (ingest.partitions, ingest.append_time) == (1, False)
    assert ingest.max_batch_bytes == CAREFUL_BATCH_BYTES
    assert f"DescribeConfigs on topic {topics.ingest}" in str(logs)


async def test_topics_that_were_just_made_are_waited_for(
    proxy: AlteringProxy, proxied: ConsumerSettings
) -> None:
    """A broker that has not heard of them yet says nothing of them; it is said at once."""
    left = [2]

    def hide(answer: dict[str, Any]) -> None:
        if left[0] and answer["topics"]:
            left[0] -= 1
            answer["topics"] = []

    async with open_cluster(proxied) as cluster:
        proxy.alter[METADATA] = hide
        with capture_logs() as logs:
            assert len(await cluster.topics()) == 3

    assert [entry["event"] for entry in logs] == ["waiting for topics"]


async def test_misspelt_topic_ends_the_wait(proxied: ConsumerSettings) -> None:
    """It never comes."""
    misspelt = proxied.model_copy(update={"dlq_topic": "misspelt", "broker_wait_seconds": 0.5})
    async with open_cluster(misspelt) as cluster:
        with pytest.raises(FatalError, match="misspelt") as caught:
            await cluster.topics()
    assert caught.value.code is ExitCode.TOPIC


@pytest.mark.parametrize(
    ("code", "exit_code"), [(29, ExitCode.ACCESS), (35, ExitCode.PROTOCOL), (2, ExitCode.PROTOCOL)]
)
async def test_history_that_is_refused(
    broker: Broker,
    proxy: AlteringProxy,
    proxied: ConsumerSettings,
    topics: Topics,
    code: int,
    exit_code: ExitCode,
) -> None:
    """An answer about offsets with an error that no retry heals."""
    await publish(broker, topics.ingest, 2)

    def refuse(answer: dict[str, Any]) -> None:
        for topic in answer["topics"]:
            for partition in topic["partitions"]:
                partition["error_code"] = code

    proxy.alter[LIST_OFFSETS] = refuse
    with pytest.raises(FatalError) as caught:
        await history(proxied, topics)
    assert caught.value.code is exit_code


async def test_broker_is_away_while_history_is_read(
    proxied: ConsumerSettings, topics: Topics
) -> None:
    """Nobody answers any longer: not a bug, and no client stays open."""
    away = proxied.model_copy(update={"bootstrap_servers": (f"127.0.0.1:{free_port()}",)})
    with pytest.raises(FatalError) as caught:
        await history(away, topics)
    assert caught.value.code is ExitCode.BROKER


async def history(settings: ConsumerSettings, topics: Topics) -> list[Record]:
    partition = TopicPartition(topics.ingest, 0)
    return await read_back(kafka_client(settings), partition, 2, 60, lambda record: record)


async def test_new_partitions_are_noticed(broker: Broker, topics: Topics, join: Join) -> None:
    """Partitions that are added while the group runs are worked on within seconds."""
    member = await join()
    await member.assigned()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topics.ingest: NewPartitions(3)})
    finally:
        await admin.close()
    new = {(topics.ingest, 1), (topics.ingest, 2)}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not new <= member.workers.positions.keys():
            await member.stream.poll({}, 0.1)
