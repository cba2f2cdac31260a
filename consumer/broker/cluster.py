"""What the cluster has: a broker that answers, the topics and their settings, positions."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from consumer.partition.offsets import Position
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError

log = structlog.get_logger()

RETRY_SECONDS: Final = 0.2
COMPRESSION_WARNING: Final = (
    "the ingest topic lets compressed records through, which may be bombs, and of which gzip alone "
    "can be read; compression.type=uncompressed has the broker unpack and limit them"
)


def client_arguments(settings: ConsumerSettings) -> dict[str, Any]:
    """Return how every client of this process reaches the cluster."""
    return {"bootstrap_servers": list(settings.bootstrap_servers), "client_id": "imagelane"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic as the cluster has it.

    `append_time`: the broker sets the time of its records. `unpacked`: it unpacks compressed ones
    and holds them to `max_batch_bytes`, so that none can be a bomb for us.
    """

    name: str
    partitions: int
    append_time: bool
    unpacked: bool
    max_batch_bytes: int


class Cluster:
    """An administrative client of the cluster."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> Self:
        self._admin = await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._admin:
            await self._admin.close()

    async def topics(self) -> list[TopicFacts]:
        """Return ingest, results and dead letter topic.

        Raises:
            FatalError: which of them does not exist, and how to create them.
        """
        admin = self._connected()
        names = [
            self._settings.ingest_topic,
            self._settings.results_topic,
            self._settings.dlq_topic,
        ]
        found = {t["topic"]: t for t in await admin.describe_topics() if t["topic"] in names}
        if missing := [name for name in names if name not in found]:
            raise FatalError(
                ExitCode.TOPIC,
                f"topic: {', '.join(missing)} not there; `python -m producer topics` creates them",
            )
        return [await self._facts(name, len(found[name]["partitions"])) for name in names]

    async def committed(self, partition: TopicPartition) -> Position | None:
        """Return the group's committed position of a partition, or None where it has none.

        The consumer's own call would do but for the metadata, which it does not hand out.
        """
        while True:  # the caller bounds it
            try:
                offsets = await self._connected().list_consumer_group_offsets(
                    self._settings.group_id, partitions=[partition]
                )
                break
            except KafkaError as exc:
                if not exc.retriable:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        found = offsets.get(partition)
        if found is None or found.offset < 0:
            return None
        return Position(offset=found.offset, metadata=found.metadata or "")

    async def _facts(self, topic: str, partitions: int) -> TopicFacts:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        (response,) = await self._connected().describe_configs([resource])
        configs = {name: value for name, value, *_ in response.resources[0][4]}
        return TopicFacts(
            name=topic,
            partitions=partitions,
            append_time=configs.get("message.timestamp.type") == "LogAppendTime",
            unpacked=configs.get("compression.type") == "uncompressed",
            max_batch_bytes=int(configs["max.message.bytes"]),
        )

    async def _connect(self) -> AIOKafkaAdminClient:
        """Connect, and wait for the broker a while: it may be starting as well."""
        brokers = ", ".join(self._settings.bootstrap_servers)
        give_up = time.monotonic() + self._settings.broker_wait_seconds
        while True:
            admin = AIOKafkaAdminClient(**client_arguments(self._settings))
            try:
                async with asyncio.timeout(10):
                    await admin.start()
                return admin
            except (TimeoutError, KafkaError, OSError) as exc:
                await admin.close()
                if time.monotonic() >= give_up:
                    raise FatalError(
                        ExitCode.BROKER,
                        f"broker: none answers at {brokers}; is Kafka up, and is "
                        "BOOTSTRAP_SERVERS right?",
                    ) from exc
                log.warning("waiting for a broker", bootstrap_servers=brokers)
            await asyncio.sleep(1)

    def _connected(self) -> AIOKafkaAdminClient:
        assert self._admin, "used outside its context"
        return self._admin
