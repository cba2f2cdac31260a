"""The ledger: what went in, what came out, where the group stands. One look for every fault."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

from schemas import decode_result, headers
from tests.conftest import Topics

PATIENCE_SECONDS = 120

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Ids in, outcomes by id as a read_committed reader sees them, and what is left open."""

    sent: Counter[str]
    results: Counter[str]
    letters: Counter[str]
    refused: Counter[str]  # dead letters of stage admit, which have no result
    failures: dict[str, str]  # the code of each error result
    codes: dict[str, str]  # the code of each dead letter
    lag: int
    open_transactions: int

    @property
    def lost(self) -> list[str]:
        """Ids that have no outcome."""
        return sorted(self.sent.keys() - self.results.keys() - self.refused.keys())

    @property
    def doubled(self) -> list[str]:
        """Ids with two results or two dead letters, or with a result beside a refusal."""
        twice = {
            name
            for counter in (self.results, self.letters)
            for name in counter
            if counter[name] > 1
        }
        return sorted(twice | (self.refused.keys() & self.results.keys()))

    @property
    def torn(self) -> list[str]:
        """Ids that failed with one half of their outcome alone, or with two different codes."""
        failed = {name: code for name, code in self.codes.items() if name not in self.refused}
        return sorted(name for name, _ in failed.items() ^ self.failures.items())

    def check(self) -> None:
        """Fail unless every id has exactly one whole outcome and nothing is left open."""
        assert not self.lost, f"{len(self.lost)} lost: {self.lost[:5]}"
        assert not self.doubled, f"{len(self.doubled)} doubled: {self.doubled[:5]}"
        assert not self.torn, f"{len(self.torn)} torn: {self.torn[:5]}"
        assert not (self.results + self.letters).keys() - self.sent.keys()
        assert self.lag == 0, f"the group lags by {self.lag} records"
        assert self.open_transactions == 0


async def read_ledger(
    bootstrap: str, topics: Topics, group_id: str, open_transactions: int
) -> Ledger:
    """Read all topics from their start to their end."""
    sent = await _read(bootstrap, topics.ingest)
    results = await _read(bootstrap, topics.results)
    letters = await _read(bootstrap, topics.dlq)
    refused = [letter for letter in letters if _header(letter, headers.DLQ_STAGE) == "admit"]
    return Ledger(
        sent=_ids(sent),
        results=_ids(results),
        letters=_ids(letters),
        refused=_ids(refused),
        failures={
            result.id: result.error.code
            for result in (decode_result(record.value or b"") for record in results)
            if result.error
        },
        codes={
            _header(letter, headers.SIG_ID): _header(letter, headers.DLQ_CODE) for letter in letters
        },
        lag=await lag(bootstrap, topics.ingest, group_id),
        open_transactions=open_transactions,
    )


async def lag(bootstrap: str, topic: str, group_id: str) -> int:
    """Return how many records of a topic lie beyond the group's committed position."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        committed = await _retried(lambda: _committed(admin, group_id))
    finally:
        await admin.close()
    partitions = await _partitions(bootstrap, topic)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        ends = await consumer.end_offsets(partitions)
    return sum(end - max(0, committed.get(p, 0)) for p, end in ends.items())


async def _committed(admin: AIOKafkaAdminClient, group_id: str) -> dict[TopicPartition, int]:
    """Return a group's positions. aiokafka's own call takes an error for a group without any."""
    coordinator = await admin.find_coordinator(group_id)
    answer = await admin._send_request(OffsetFetchRequest(group_id, None), coordinator)
    if answer.error_code:
        raise for_code(answer.error_code)(group_id)
    return {
        TopicPartition(topic, partition): offset
        for topic, partitions in answer.topics
        for partition, offset, *_ in partitions
    }


async def _retried(call: "Callable[[], Awaitable[T]]") -> "T":
    """Call again while a coordinator is being found, as after a start of the broker."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await call()
            except KafkaError as exc:
                if not exc.retriable:
                    raise
            await asyncio.sleep(0.2)


async def _read(bootstrap: str, topic: str) -> "list[ConsumerRecord[bytes, bytes]]":
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    partitions = await _partitions(bootstrap, topic)
    async with consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        records: list[ConsumerRecord[bytes, bytes]] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any([await consumer.position(p) < end for p, end in ends.items()]):
                batches = await consumer.getmany(timeout_ms=200)
                records += [record for batch in batches.values() for record in batch]
        return records


async def _partitions(bootstrap: str, topic: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        [found] = await _retried(lambda: admin.describe_topics([topic]))
    finally:
        await admin.close()
    return [TopicPartition(topic, part["partition"]) for part in found["partitions"]]


def _ids(records: "list[ConsumerRecord[bytes, bytes]]") -> Counter[str]:
    return Counter(_header(record, headers.SIG_ID) for record in records)


def _header(record: "ConsumerRecord[bytes, bytes]", name: str) -> str:
    return next((value.decode() for key, value in record.headers if key == name), "")
