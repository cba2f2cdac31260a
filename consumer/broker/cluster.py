"""What the cluster has: a broker that answers, the topics and their settings, positions."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumer.partition.offsets import Position
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from imagelane.kafka import client
from imagelane.kafka.admin import (
    Unanswered,
    committed_offset,
    retried,
    topic_configs,
    topic_partitions,
)
from imagelane.kafka.diagnosis import no_broker, refusal_of

log = structlog.get_logger()

ANSWER_SECONDS: Final = 10  # how long an answer about the topics is waited for
_Answer = TypeVar("_Answer")
NO_QUERIES: Final = "there is no queries topic, `imagelane topics` creates it"
COMPRESSION_WARNING: Final = (
    "the topic keeps the producers' compression: whoever can write to it decides what a batch "
    "unpacks to, here up to 8 MiB; compression.type=uncompressed has the broker unpack and limit "
    "it, and `python -m producer topics --fix` sets that"
)
COMPRESSION_UNKNOWN: Final = (
    "whether the topic keeps the producers' compression is not known; a batch is unpacked up to "
    "8 MiB, and compression.type=uncompressed is better"
)


def client_arguments(settings: ConsumerSettings) -> dict[str, Any]:
    """Return how every client of this process reaches the cluster."""
    return client.client_arguments(settings, "imagelane")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic as the cluster has it.

    `append_time`: the broker sets the time of its records. `unpacked`: it unpacks compressed ones
    and holds them to `max_batch_bytes`, so that none can be a bomb for us; None: nobody told.
    """

    name: str
    partitions: int
    append_time: bool
    unpacked: bool | None
    max_batch_bytes: int

    def compression_fault(self, *, allowed: bool) -> str | None:
        """Return what is to be said of the topic's compression, if anything.

        Raises:
            FatalError: it keeps the producers' codec, and nobody has allowed that.
        """
        if self.unpacked is None:
            return COMPRESSION_UNKNOWN
        if self.unpacked:
            return None
        if not allowed:
            raise FatalError(
                ExitCode.TOPIC,
                f"topic: {self.name}: {COMPRESSION_WARNING}; or set ALLOW_COMPRESSED=true",
            )
        return COMPRESSION_WARNING


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

    @property
    def brokers(self) -> str:
        """The brokers that answered, `host:port` by comma, as the cluster names them."""
        known = self._connected()._client.cluster.brokers()
        return ", ".join(sorted(f"{broker.host}:{broker.port}" for broker in known))

    async def topics(self) -> list[TopicFacts]:
        """Return ingest, results and dead letter topic.

        Raises:
            FatalError: which of them does not exist, and how to create them.
        """
        names = [
            self._settings.ingest_topic,
            self._settings.results_topic,
            self._settings.dlq_topic,
        ]
        found = await self._answer(lambda: topic_partitions(self._connected()))
        if missing := [name for name in names if name not in found]:
            raise FatalError(
                ExitCode.TOPIC,
                f"topic: {', '.join(missing)} not there; `imagelane topics` creates them",
            )
        return [await self._facts(name, len(found[name])) for name in names]

    async def queries(self) -> TopicFacts | None:
        """Return the queries topic, or None where there is none: it is no condition to start."""
        name = self._settings.queries_topic
        found = await self._answer(lambda: topic_partitions(self._connected()))
        return await self._facts(name, len(found[name])) if name in found else None

    async def committed(self, partition: TopicPartition) -> Position | None:
        """Return the group's committed position of a partition, or None where it has none.

        Raises:
            Unanswered: its coordinator has not answered for `TRANSACTION_TIMEOUT_SECONDS`.
            FatalError: it refuses.
        """
        group_id, warned = self._settings.group_id, set[str]()

        def warn(reason: Unanswered) -> None:
            if str(reason) not in warned:
                log.warning("position not answered", reason=str(reason))
                warned.add(str(reason))

        found = await retried(
            lambda: committed_offset(self._connected(), group_id, partition),
            self._settings.transaction_timeout_seconds,
            warn,
        )
        return Position(offset=found.offset, metadata=found.metadata) if found else None

    async def _facts(self, topic: str, partitions: int) -> TopicFacts:
        configs = await self._answer(lambda: topic_configs(self._connected(), topic))
        compression = configs.get("compression.type")
        return TopicFacts(
            name=topic,
            partitions=partitions,
            append_time=configs.get("message.timestamp.type") == "LogAppendTime",
            unpacked=None if compression is None else compression == "uncompressed",
            max_batch_bytes=int(configs["max.message.bytes"]),
        )

    async def _answer(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Ask, and again while that may heal; no answer in time ends the process."""
        try:
            return await retried(ask, ANSWER_SECONDS)
        except Unanswered as exc:
            raise FatalError(ExitCode.BROKER, f"broker: {exc}") from exc

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
                if refusal := await refusal_of(self._settings):
                    raise refusal from exc
                if time.monotonic() >= give_up:
                    raise FatalError(ExitCode.BROKER, no_broker(self._settings)) from exc
                log.warning("waiting for a broker", bootstrap_servers=brokers)
            await asyncio.sleep(1)

    def _connected(self) -> AIOKafkaAdminClient:
        assert self._admin, "used outside its context"
        return self._admin
