"""The one place that opens Kafka clients, bounds their waits and translates their errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from producer.settings import ProducerSettings
from schemas import Record, TimestampType
from schemas.exits import ExitCode, Halt

_STOP_SECONDS = 5.0


class _ClientArguments(TypedDict):
    bootstrap_servers: list[str]
    client_id: str
    request_timeout_ms: int


def _client_arguments(settings: ProducerSettings) -> _ClientArguments:
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": "imagelane-producer",
        "request_timeout_ms": int(settings.broker_timeout_seconds * 1000),
    }


@asynccontextmanager
async def answering(settings: ProducerSettings, doing: str) -> AsyncIterator[None]:
    """Bound the body by the setting, and raise whatever keeps the brokers from answering as `Halt`.

    Raises:
        Halt: `BROKER` when they refuse, are away or take too long; `TOPIC` when one is missing.
    """
    brokers = ",".join(settings.bootstrap_servers)
    try:
        async with asyncio.timeout(settings.broker_timeout_seconds):
            yield
    except TimeoutError as exc:
        seconds = settings.broker_timeout_seconds
        raise Halt(
            ExitCode.BROKER,
            f"no answer from {brokers} in {seconds:g} s, {doing}; see BOOTSTRAP_SERVERS",
        ) from exc
    except UnknownTopicOrPartitionError as exc:
        raise Halt(ExitCode.TOPIC, f"a topic is missing on {brokers}, {doing}") from exc
    except KafkaError as exc:
        reason = str(exc) or type(exc).__name__
        raise Halt(ExitCode.BROKER, f"{brokers}, {doing}: {reason}; see BOOTSTRAP_SERVERS") from exc


@asynccontextmanager
async def administration(settings: ProducerSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client.

    Raises:
        Halt: no broker answers.
    """
    admin = AIOKafkaAdminClient(**_client_arguments(settings))
    try:
        async with answering(settings, "connecting"):
            await admin.start()
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def writer(settings: ProducerSettings) -> AsyncIterator[AIOKafkaProducer]:
    """Open an idempotent producer that waits for all in-sync replicas (`acks=all`).

    Raises:
        Halt: no broker answers.
    """
    producer = AIOKafkaProducer(
        **_client_arguments(settings), acks="all", enable_idempotence=True, linger_ms=2
    )
    try:
        async with answering(settings, "connecting"):
            await producer.start()
        yield producer
    finally:
        await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    """Stop within a bound: the client's own stop waits for ever for brokers that are away."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await producer.stop()
    except TimeoutError:
        sender = producer._sender.sender_task  # no public way to give up what is not sent
        sender.cancel()
        await asyncio.wait({sender}, timeout=_STOP_SECONDS)
        await producer.client.close()


@asynccontextmanager
async def reader(
    settings: ProducerSettings, partitions: list[TopicPartition]
) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer of committed records of these partitions, outside any group.

    Raises:
        Halt: no broker answers.
    """
    consumer = AIOKafkaConsumer(
        **_client_arguments(settings),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        async with answering(settings, "connecting"):
            await consumer.start()
        consumer.assign(partitions)
        yield consumer
    finally:
        await consumer.stop()


async def existing_partitions(
    settings: ProducerSettings, topics: tuple[str, ...]
) -> list[TopicPartition]:
    """Return the partitions of all these topics.

    Raises:
        Halt: no broker answers, or a topic does not exist.
    """
    async with administration(settings) as admin, answering(settings, "listing the topics"):
        # All of them: to ask for one by name would have the broker create it.
        found = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    missing = [topic for topic in topics if topic not in found]
    if missing:
        brokers = ",".join(settings.bootstrap_servers)
        raise Halt(
            ExitCode.TOPIC,
            f"no topic {', '.join(missing)} on {brokers}; `python -m producer topics` creates it",
        )
    return [
        TopicPartition(topic, partition["partition"])
        for topic in topics
        for partition in found[topic]
    ]


def to_record(record: "ConsumerRecord[Any, Any]") -> Record:
    """Return the record free of the client's types."""
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        timestamp_type=TimestampType(record.timestamp_type),
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )
