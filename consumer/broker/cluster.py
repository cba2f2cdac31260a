"""An administrative client: waits for a broker, reads topics, their settings and positions."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.admin import (
    RETRY_SECONDS,
    committed_offsets,
    retried,
    topic_configs,
    topic_partitions,
)
from imagelane.kafka.diagnosis import no_broker, out_of_reach, refusal_of
from imagelane.kafka.errors import Unanswered, answers_needed
from imagelane.kafka.settings import KafkaSettings
from imagelane.position import Position

log = structlog.get_logger()

_Reply = TypeVar("_Reply")

ANSWER_SECONDS: Final = 10  # wait for an answer about topics
WARN_SECONDS: Final = 10  # between two warnings that no broker answers
TOPIC_SECONDS: Final = 10  # wait for topics that were created a moment ago
# Batch limit where we may not read the topic's own: far below that of any sensible topic.
CAREFUL_BATCH_BYTES: Final = 64 * 1024
NO_QUERIES_TOPIC: Final = "there is no queries topic, `imagelane topics` creates it"
COMPRESSION_WARNING: Final = (
    "the topic keeps the producers' compression: whoever can write to it decides what a batch "
    "unpacks to, here up to 8 MiB; compression.type=uncompressed has the broker unpack and limit "
    "it, and `python -m producer topics --fix` sets that"
)
COMPRESSION_UNKNOWN: Final = (
    "whether the topic keeps the producers' compression is not known; a batch is unpacked up to "
    "8 MiB, and compression.type=uncompressed is better"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic and its settings.

    `append_time`: the broker sets the records' time. `unpacked`: the broker stores batches
    uncompressed, `max_batch_bytes` at most, so none is a decompression bomb; None: not known.
    """

    name: str
    partitions: int
    append_time: bool
    unpacked: bool | None
    max_batch_bytes: int

    def compression_fault(self, *, allowed: bool) -> str | None:
        """Return a warning about the topic's compression, or None.

        Raises:
            FatalError: the topic keeps the producers' codec, and that is not `allowed`.
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
    """An administrative client, connected inside its context."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        client: Mapping[str, Any],
        topics: Sequence[str],
        queries_topic: str,
        group_id: str,
        broker_wait_seconds: float,
        position_wait_seconds: float,
    ) -> None:
        """Prepare a client; `topics` are ingest, results and dead letters."""
        self._kafka = kafka
        self._client = client
        self._topics = topics
        self._queries_topic = queries_topic
        self._group_id = group_id
        self._broker_wait_seconds = broker_wait_seconds
        self._position_wait_seconds = position_wait_seconds
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> Self:
        self._admin = await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._admin:
            await self._admin.close()

    @property
    def brokers(self) -> str:
        """The brokers as the cluster names them, `host:port` by comma."""
        known = self._connected()._client.cluster.brokers()
        return ", ".join(sorted(f"{broker.host}:{broker.port}" for broker in known))

    async def topics(self) -> list[TopicFacts]:
        """Return ingest, results and dead letter topic.

        Raises:
            FatalError: one of them does not exist.
        """
        names = self._topics
        give_up = time.monotonic() + min(TOPIC_SECONDS, self._broker_wait_seconds)
        warned = False
        while True:
            found = await self._answer(lambda: topic_partitions(self._connected()))
            if not (missing := [name for name in names if name not in found]):
                break
            line = f"{', '.join(missing)} not there; `imagelane topics` creates them"
            if time.monotonic() >= give_up:
                raise FatalError(ExitCode.TOPIC, f"topic: {line}")
            if not warned:
                log.warning("waiting for topics", seconds=TOPIC_SECONDS, reason=line)
                warned = True
            await asyncio.sleep(RETRY_SECONDS)
        return [await self._facts(name, len(found[name])) for name in names]

    async def queries(self) -> TopicFacts | None:
        """Return the queries topic; None: it does not exist, and is optional."""
        name = self._queries_topic
        found = await self._answer(lambda: topic_partitions(self._connected()))
        return await self._facts(name, len(found[name])) if name in found else None

    async def committed(self, partition: TopicPartition) -> Position | None:
        """Return the group's committed position of a partition, or None.

        Raises:
            Unanswered: the coordinator has not answered for `position_wait_seconds`.
            FatalError: the coordinator refuses.
        """
        return (await self.all_committed([partition])).get(partition)

    async def all_committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Position]:
        """Return the group's committed positions of these partitions; raises as `committed`."""
        group_id, warned = self._group_id, set[str]()

        def warn(reason: Unanswered) -> None:
            if str(reason) not in warned:
                log.warning("position not answered", reason=str(reason))
                warned.add(str(reason))

        return await retried(
            lambda: committed_offsets(self._connected(), group_id, partitions),
            self._position_wait_seconds,
            warn,
        )

    async def _facts(self, topic: str, partitions: int) -> TopicFacts:
        try:
            configs = await self._answer(lambda: topic_configs(self._connected(), topic))
        except FatalError as exc:
            if exc.code is not ExitCode.ACCESS:
                raise
            log.warning(
                "settings of a topic may not be read; going on with careful ones",
                topic=topic,
                reason=f"the right DescribeConfigs on topic {topic} is not granted to us",
            )
            configs = {}
        compression = configs.get("compression.type")
        return TopicFacts(
            name=topic,
            partitions=partitions,
            append_time=configs.get("message.timestamp.type") == "LogAppendTime",
            unpacked=None if compression is None else compression == "uncompressed",
            max_batch_bytes=int(configs.get("max.message.bytes", CAREFUL_BATCH_BYTES)),
        )

    async def _answer(self, ask: Callable[[], Awaitable[_Reply]]) -> _Reply:
        """Ask, with retries for `ANSWER_SECONDS`; without an answer raise `FatalError`."""
        with answers_needed("asking for the topics"):
            return await retried(ask, ANSWER_SECONDS)

    async def _connect(self) -> AIOKafkaAdminClient:
        """Connect, with retries: the broker may be starting too."""
        brokers = ", ".join(self._kafka.bootstrap_servers)
        warn_next = time.monotonic()
        give_up = warn_next + self._broker_wait_seconds
        while True:
            admin = AIOKafkaAdminClient(**self._client)
            try:
                async with asyncio.timeout(10):
                    await admin.start()
                    fault = await out_of_reach(self._kafka, admin._client)
                if fault is None:
                    return admin
                await admin.close()
            except (TimeoutError, KafkaError, OSError) as exc:
                await admin.close()
                if refusal := await refusal_of(self._kafka):
                    raise refusal from exc
                fault = FatalError(ExitCode.BROKER, no_broker(self._kafka))
            if time.monotonic() >= give_up:
                raise fault
            if time.monotonic() >= warn_next:
                log.warning("waiting for a broker", bootstrap_servers=brokers, reason=str(fault))
                warn_next += WARN_SECONDS
            await asyncio.sleep(1)

    def _connected(self) -> AIOKafkaAdminClient:
        assert self._admin, "used outside its context"
        return self._admin
