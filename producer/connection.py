"""The one place that opens Kafka clients, bounds their waits and translates their errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownTopicOrPartitionError

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.admin import topic_partitions
from imagelane.kafka.client import client_arguments
from imagelane.kafka.diagnosis import no_broker, out_of_reach, refusal_of
from imagelane.kafka.errors import Unanswered, access_fault
from imagelane.kafka.header_names import tolerate_header_names
from producer.settings import ProducerSettings
from schemas import Record, TimestampType

_STOP_SECONDS: Final = 5.0
_GIVE_UP_SECONDS: Final = 0.2
_RECORDS_AT_ONCE: Final = 500


def _client_arguments(settings: ProducerSettings) -> dict[str, Any]:
    return {
        **client_arguments(settings, "imagelane-producer"),
        "request_timeout_ms": int(settings.broker_timeout_seconds * 1000),
    }


@asynccontextmanager
async def answering(settings: ProducerSettings, doing: str) -> AsyncIterator[None]:
    """Bound the body by `broker_timeout_seconds`, and translate its errors.

    Raises:
        FatalError: `BROKER`: no broker answers in time; `ACCESS`: a right or the login is refused;
            `TLS`: a certificate is; `TOPIC`: a topic is missing.
    """
    seconds, brokers = settings.broker_timeout_seconds, ",".join(settings.bootstrap_servers)
    try:
        async with asyncio.timeout(seconds):
            yield
    except UnknownTopicOrPartitionError as exc:
        raise FatalError(ExitCode.TOPIC, f"{doing}: a topic is missing on {brokers}") from exc
    except (KafkaError, TimeoutError, Unanswered) as exc:
        if denied := access_fault(exc, doing):
            raise denied from exc
        if refusal := await refusal_of(settings):
            raise refusal from exc
        if isinstance(exc, KafkaConnectionError):  # its words are a list of Python's addresses
            raise FatalError(ExitCode.BROKER, no_broker(settings)) from exc
        reason = str(exc) or f"no answer in {seconds:g} s"
        raise FatalError(ExitCode.BROKER, f"{doing}: {brokers}: {reason}; is Kafka up?") from exc


def administration(settings: ProducerSettings) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    """Open an admin client; raises as `answering`, like the other clients."""
    client = AIOKafkaAdminClient(**_client_arguments(settings))
    return _started(settings, client, client.close)


def writer(settings: ProducerSettings) -> AbstractAsyncContextManager[AIOKafkaProducer]:
    """Open an idempotent producer that waits for all in-sync replicas."""
    client = AIOKafkaProducer(
        **_client_arguments(settings), acks="all", enable_idempotence=True, linger_ms=2
    )
    return _started(settings, client, lambda: _stop_writer(client))


def reader(settings: ProducerSettings) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """Open a consumer of committed records, outside any group; the caller assigns and seeks."""
    return _reader(settings)


def log_reader(settings: ProducerSettings) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """Open a consumer of uncommitted records as well: its ends are those of the log."""
    return _reader(settings, isolation_level="read_uncommitted")


def group_reader(
    settings: ProducerSettings, group_id: str
) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """Open a consumer of committed records in a group; the caller subscribes and commits."""
    return _reader(settings, group_id=group_id)


def _reader(
    settings: ProducerSettings, *, isolation_level: str = "read_committed", **group: Any
) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    tolerate_header_names()
    client = AIOKafkaConsumer(
        **_client_arguments(settings),
        **group,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    return _started(settings, client, lambda: _stop_reader(client))


@asynccontextmanager
async def _started(
    settings: ProducerSettings, client: Any, stop: Callable[[], Awaitable[None]]
) -> AsyncIterator[Any]:
    try:
        async with answering(settings, "connecting"):
            await client.start()
            kafka = client.client if isinstance(client, AIOKafkaProducer) else client._client
            if fault := await out_of_reach(settings, kafka):
                raise fault
        yield client
    finally:
        await stop()


async def _stop_writer(producer: AIOKafkaProducer) -> None:
    """Stop within a bound: the client's own stop waits for ever for absent brokers.

    Records without an acknowledgement are then given up. aiokafka has no public way for that, so
    the sender is detached first: `stop` would otherwise wait for a flush that cannot finish.
    """
    flushing = asyncio.create_task(producer.flush())
    await asyncio.wait({flushing}, timeout=_STOP_SECONDS)
    if flushing.cancel():
        sending, producer._sender._sender_task = producer._sender.sender_task, None
        for _ in range(2):  # the sender, then the request that it still awaits
            sending.cancel()
            await asyncio.wait({sending}, timeout=_GIVE_UP_SECONDS)
    await producer.stop()


async def _stop_reader(consumer: AIOKafkaConsumer) -> None:
    """Stop, and close the connections even if the client's own stop ends half-way.

    While a broker is away, aiokafka 0.14 awaits a fetch that it has just cancelled, and its stop
    ends with that cancellation.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=_STOP_SECONDS)
    if stopping.cancel() or stopping.cancelled():
        await consumer._client.close()


async def existing_partitions(
    settings: ProducerSettings, topics: Sequence[str]
) -> list[TopicPartition]:
    """Return the partitions of all these topics.

    Raises:
        FatalError: no broker answers, or a topic does not exist.
    """
    async with administration(settings) as admin, answering(settings, "listing the topics"):
        found = await topic_partitions(admin)
    missing = [topic for topic in topics if topic not in found]
    if missing:
        brokers = ",".join(settings.bootstrap_servers)
        raise FatalError(
            ExitCode.TOPIC,
            f"no topic {', '.join(missing)} on {brokers}; `imagelane topics` creates it",
        )
    return [
        TopicPartition(topic, partition["partition"])
        for topic in topics
        for partition in found[topic]
    ]


async def poll(consumer: AIOKafkaConsumer, timeout_ms: int) -> list[Record]:
    """Return the records that are there or come within the time; at most 500."""
    taken = await consumer.getmany(timeout_ms=timeout_ms, max_records=_RECORDS_AT_ONCE)
    return [to_record(record) for found in taken.values() for record in found]


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
