"""Leaders of partitions: who leads, and how to have another broker lead, by Kafka's own protocol.

The console tools do the same, but each call starts a JVM of two seconds. The consumer under test
moves its own coordinator between two requests, where that is too long.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

OFFSETS = "__consumer_offsets"
TRANSACTIONS = "__transaction_state"
PATIENCE_SECONDS = 60
TIMEOUT_MS = 30_000
_POLL_SECONDS = 0.02
_PREFERRED = 0
_GROUP, _TRANSACTION = 0, 1
_ELECTION_NOT_NEEDED = 84


class _ElectLeadersResponse(Response):
    API_KEY = 43
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", String("utf-8")),
                    ),
                ),
            ),
        ),
    )


class _ElectLeaders(RequestStruct):
    API_KEY = 43
    API_VERSION = 1
    RESPONSE_TYPE = _ElectLeadersResponse
    SCHEMA = Schema(
        ("election_type", Int8),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
        ("timeout_ms", Int32),
    )


class ElectLeadersRequest(Request[_ElectLeaders]):
    """ElectLeaders of one partition to its preferred replica, which aiokafka does not have."""

    API_KEY = 43

    def __init__(self, topic: str, partition: int) -> None:
        self._topics = [(topic, [partition])]

    def build(self, request_struct_class: type[_ElectLeaders]) -> _ElectLeaders:
        return request_struct_class(_PREFERRED, self._topics, TIMEOUT_MS)


class OffsetProbe(OffsetFetchRequest):
    """A question whether a broker is a group's coordinator, told from a consumer's own."""


def _partition_of(name: str, partitions: int) -> int:
    """Return the partition for a group or a transactional id: Java's hash of its name."""
    code = 0
    for char in name:
        code = (31 * code + ord(char)) & 0xFFFFFFFF
    signed = code - 2**32 if code >= 2**31 else code
    return abs(signed) % partitions


@asynccontextmanager
async def leaders(bootstrap: str) -> "AsyncIterator[Leaders]":
    """Connect to the cluster."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=TIMEOUT_MS)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await admin.start()
    try:
        yield Leaders(admin)
    finally:
        await admin.close()


async def until_gone(bootstrap: str, number: int) -> None:
    """Wait until each of the brokers at these addresses knows that one is not there."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        for address in bootstrap.split(","):
            known = {number}
            while number in known:
                await asyncio.sleep(0.1)
                async with leaders(address) as found:
                    known = found.brokers()


class Leaders:
    """The leaders of a cluster of brokers that all hold a replica of everything."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    def brokers(self) -> set[int]:
        """Return the brokers that are there, as the one that was connected to first knows them."""
        return {broker.nodeId for broker in self._admin._client.cluster.brokers()}

    async def partitions(self, topic: str) -> list[dict[str, Any]]:
        """Return the partitions of a topic by number: `leader`, `replicas`, `isr` and more."""
        [found] = await self._admin.describe_topics([topic])
        return sorted(found["partitions"], key=lambda part: int(part["partition"]))

    async def leader(self, topic: str, partition: int) -> int:
        """Return the broker that leads a partition, -1 while none does."""
        return int((await self.partitions(topic))[partition]["leader"])

    async def partition_of(self, topic: str, name: str) -> int:
        """Return the partition whose leader coordinates a group or a transactional id.

        `topic` is `OFFSETS` for the one, `TRANSACTIONS` for the other.
        """
        return _partition_of(name, len(await self.partitions(topic)))

    async def move(self, topic: str, partition: int) -> tuple[int, int]:
        """Have the next replica lead a partition; return who led it and who leads it now.

        Its replicas stay: another order of them first, then the election of the preferred one.
        """
        found = (await self.partitions(topic))[partition]
        before, replicas = found["leader"], sorted(found["replicas"])
        wanted = replicas[(replicas.index(before) + 1) % len(replicas)]
        await self.assign(topic, partition, [wanted, *(r for r in replicas if r != wanted)])
        await self.elect(topic, partition)
        await self._until_led_by(topic, partition, [wanted])
        return before, wanted

    async def reassign(self, topic: str, partition: int) -> None:
        """Take the leader's replica away, so that another leads, and then put it back as a copy."""
        found = (await self.partitions(topic))[partition]
        others = [replica for replica in found["replicas"] if replica != found["leader"]]
        await self.assign(topic, partition, others)
        await self._until_led_by(topic, partition, others)
        await self.assign(topic, partition, [*others, found["leader"]])

    async def move_coordinator(self, group_id: str) -> tuple[int, int]:
        """Move a group's coordinator, and wait until the old one answers with an error."""
        partition = await self.partition_of(OFFSETS, group_id)
        before, after = await self.move(OFFSETS, partition)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.offset_error(group_id, before):  # noqa: ASYNC110 - it asks Kafka
                await asyncio.sleep(_POLL_SECONDS)
        return before, after

    async def offset_error(self, group_id: str, node: int) -> int:
        """Return the top-level error with which a broker answers for a group's positions."""
        answer = await self._admin._send_request(OffsetProbe(group_id, None), node)
        return int(answer.error_code)

    async def assign(self, topic: str, partition: int, replicas: Sequence[int]) -> None:
        """Give a partition these replicas, the preferred one first."""
        topics: list[Any] = [(topic, [(partition, list(replicas), {})], {})]
        request = AlterPartitionReassignmentsRequest(TIMEOUT_MS, topics, {})
        answer = await self._admin._send_request(request)
        codes = [answer.error_code, *(p[1] for t in answer.responses for p in t[1])]
        _raise(codes)

    async def elect(self, topic: str, partition: int) -> None:
        """Have the preferred replica lead."""
        answer = await self._admin._send_request(ElectLeadersRequest(topic, partition))
        codes = [answer.error_code, *(p[1] for t in answer.topics for p in t[1])]
        _raise([code for code in codes if code != _ELECTION_NOT_NEEDED])

    async def until_coordinated_by_another(self, group_id: str, former: int) -> None:
        """Wait until a group has another coordinator, which has loaded its positions."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._coordinator(group_id) in (former, None):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)

    async def _coordinator(self, group_id: str) -> int | None:
        try:
            node = int(await self._admin.find_coordinator(group_id))
            return node if not await self.offset_error(group_id, node) else None
        except KafkaError:
            return None

    async def check_hash(self) -> None:
        """Fail unless groups have their coordinators where `partition_of` says."""
        for name in ("a", "group.ingest", "zebra", "imagelane", "group.0123456789ab"):
            partition = await self.partition_of(OFFSETS, name)
            leader = await self.leader(OFFSETS, partition)
            assert await self._admin.find_coordinator(name) == leader, name

    async def create_coordinators(self) -> None:
        """Ask for coordinators until there are: Kafka makes their topics at the first question."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for kind in (_GROUP, _TRANSACTION):
                while not await self._has_coordinator(kind):  # noqa: ASYNC110 - it asks Kafka
                    await asyncio.sleep(0.2)

    async def _has_coordinator(self, kind: int) -> bool:
        try:
            await self._admin.find_coordinator("anybody", kind)
        except KafkaError:
            return False
        return True

    async def until_in_sync(self, brokers: int) -> None:
        """Wait until every partition of every topic has that many replicas in sync."""
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            while not await self._in_sync(brokers):  # noqa: ASYNC110 - it asks Kafka
                await asyncio.sleep(0.2)

    async def _in_sync(self, brokers: int) -> bool:
        try:
            topics = await self._admin.describe_topics()
        except (KafkaError, OSError):
            return False
        found = [part for topic in topics for part in topic["partitions"]]
        return all(len(part["isr"]) == brokers and part["leader"] >= 0 for part in found)

    async def _until_led_by(self, topic: str, partition: int, nodes: Sequence[int]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.leader(topic, partition) not in nodes:  # noqa: ASYNC110 - as above
                await asyncio.sleep(_POLL_SECONDS)


async def pad_offsets(bootstrap: str, partition: int, records: int) -> None:
    """Fill a partition of `__consumer_offsets` with old positions, so that to load it takes time.

    Kafka lets only its own administrative client write there, which it knows by this name.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, client_id="__admin_client", max_request_size=2**20
    )
    async with producer:
        sent = 0
        while sent < records:
            batch = producer.create_batch()
            while sent < records and batch.append(
                timestamp=None, key=_offset_key(sent), value=_OFFSET_VALUE
            ):
                sent += 1
            await (await producer.send_batch(batch, OFFSETS, partition=partition))


def _offset_key(number: int) -> bytes:
    """Return the key of a position as the coordinator writes it: group, topic, partition."""
    group, topic = b"padding", b"padding"
    key = len(group).to_bytes(2) + group + len(topic).to_bytes(2) + topic
    return (1).to_bytes(2) + key + (number % 5_000).to_bytes(4)


# Version 3: offset, leader epoch, metadata, time of the commit.
_OFFSET_VALUE = (3).to_bytes(2) + bytes(8) + b"\xff" * 4 + bytes(2) + (2**41).to_bytes(8)


def _raise(codes: Sequence[int]) -> None:
    for code in codes:
        if code:
            raise for_code(code)("a leader was not moved")
