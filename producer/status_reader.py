"""Reads the progress of the consumers from Kafka."""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.admin import committed_offsets, retried, topic_partitions
from imagelane.kafka.groups import UNKNOWN, Group, describe_group
from imagelane.position import Position, undone_in_log
from producer.connection import administration, answering, log_reader, reader
from producer.dead_letters import text_of
from producer.records import polled
from producer.settings import StatusSettings
from producer.status import DeadLetters, Fault, LastResult, PartitionStatus, Status
from producer.verification import verified
from schemas import Code, Record, Refused, Verifier
from schemas.headers import DLQ_CODE

MAX_DEAD_LETTERS: Final = 2_000  # dead letters read of each partition, the latest
_MAX_TAIL: Final = 100  # a backlog of at most so many offsets is counted record by record
_LAST_RESULTS: Final = 100  # last offsets of each partition, read for the last result
_OTHER: Final = "other"
_CODES: Final = frozenset(map(str, Code))

Reply = TypeVar("Reply")


async def read_status(settings: StatusSettings, *, since: float) -> Status:
    """Read the status; dead letters are counted since a time (Unix seconds).

    Raises:
        FatalError: no broker answers, or it refuses the login.
    """
    async with administration(settings) as admin, reader(settings) as consumer:
        async with answering(settings, "listing the topics"):
            topics = await topic_partitions(admin)
        status_parts = _StatusParts(settings, admin, consumer, topics)
        group = await _or_fault(status_parts.group())
        return Status(
            group=group,
            partitions=await _or_fault(status_parts.partitions(group)),
            last_result=await _or_fault(status_parts.last_result()),
            dead_letters=await _or_fault(status_parts.dead_letters(since)),
        )


async def _or_fault(part: Awaitable[Reply]) -> Reply | Fault:
    """Return the part or its fault; absent brokers are a fault of all parts, and raised."""
    try:
        return await part
    except FatalError as exc:
        if exc.code is ExitCode.BROKER:
            raise
        return Fault(code=exc.code, reason=str(exc))


class _StatusParts:
    """Reads each part of a status by two open clients."""

    def __init__(
        self,
        settings: StatusSettings,
        admin: AIOKafkaAdminClient,
        consumer: AIOKafkaConsumer,
        topics: Mapping[str, object],
    ) -> None:
        self._settings, self._admin, self._consumer = settings, admin, consumer
        self._topics = topics

    async def group(self) -> Group:
        """Return the group; without members and position it is an error."""
        group = await self._retried("describing the group", self._describe)
        if group.state == UNKNOWN and not await self._retried(
            "reading its position", self._positions
        ):
            brokers = ",".join(self._settings.bootstrap_servers)
            raise FatalError(
                ExitCode.FAILED,
                f"no group {group.group_id} on {brokers}: it has no members and no position; has "
                "a consumer ever run there, and is GROUP_ID right?",
            )
        return group

    async def partitions(self, group: Group | Fault) -> tuple[PartitionStatus, ...]:
        """Return the progress of each partition of ingest and queries."""
        partitions = self._requests()
        committed = await self._retried("reading its position", self._positions)
        starts, ends = await self._bounds(partitions)
        log_ends = await self._log_ends(partitions)
        members = {} if isinstance(group, Fault) else _members(group)
        return tuple(
            [
                replace(
                    await self._partition(one, committed.get(one), starts[one], ends[one]),
                    member=members.get(one),
                    withheld=max(0, log_ends[one] - ends[one]),
                )
                for one in partitions
            ]
        )

    async def last_result(self) -> LastResult | None:
        """Return the last result that verifies; without a secret the last record's place."""
        topic = self._settings.results_topic
        partitions = self._existing(topic)
        starts, ends = await self._bounds(partitions)
        is_signed = bool(self._settings.secret_api_key.get_secret_value())
        verifier = Verifier(self._settings.keys, topic) if is_signed else None
        last: LastResult | None = None
        begin = {one: max(starts[one], ends[one] - _LAST_RESULTS) for one in partitions}
        async for record in self._read(topic, begin):
            found = _result(record, verifier)
            if found and (last is None or found.appended_at >= last.appended_at):
                last = found
        return last

    async def dead_letters(self, since: float) -> DeadLetters:
        """Count dead letters by the code in their headers, which are not signed."""
        topic = self._settings.dlq_topic
        partitions = self._existing(topic)
        starts, ends = await self._bounds(partitions)
        async with answering(self._settings, f"looking for {topic}'s dead letters"):
            millis = dict.fromkeys(partitions, math.floor(since * 1000))
            found = await self._consumer.offsets_for_times(millis)
        first = {one: place.offset if place else ends[one] for one, place in found.items()}
        begin = {
            one: max(first[one], starts[one], ends[one] - MAX_DEAD_LETTERS) for one in partitions
        }
        by_code: Counter[str] = Counter()
        async for dead_letter in self._read(topic, begin):
            code = text_of(dead_letter, DLQ_CODE)
            by_code[code if code in _CODES else _OTHER] += 1
        return DeadLetters(
            since=since,
            by_code=dict(by_code.most_common()),
            is_cut=any(begin[one] > max(first[one], starts[one]) for one in partitions),
        )

    async def _partition(
        self,
        partition: TopicPartition,
        committed: Position | None,
        start: int,
        end: int,
    ) -> PartitionStatus:
        undone = undone_in_log(committed, start, end)
        left, is_exact = end - undone.done_to, False
        if left <= _MAX_TAIL:
            records = self._read(partition.topic, {partition: undone.done_to})
            left, is_exact = len([record async for record in records]), True
        still_open = len(undone.open)
        return PartitionStatus(
            topic=partition.topic,
            partition=partition.partition,
            member=None,
            position=committed.offset if committed else None,
            end=end,
            backlog=left + still_open,
            is_exact=is_exact,
            open=still_open,
            withheld=0,
        )

    def _requests(self) -> list[TopicPartition]:
        """Return the partitions of the requests; the topic of queries may be missing."""
        found = self._existing(self._settings.ingest_topic)
        if self._settings.queries_topic in self._topics:
            found += self._existing(self._settings.queries_topic)
        return found

    def _existing(self, topic: str) -> list[TopicPartition]:
        described = self._topics.get(topic)
        if not isinstance(described, list):
            raise FatalError(
                ExitCode.TOPIC,
                f"no topic {topic}, or not the right to describe it; `imagelane topics` creates it",
            )
        return sorted(TopicPartition(topic, one["partition"]) for one in described)

    async def _describe(self) -> Group:
        return await describe_group(self._admin, self._settings.group_id)

    async def _positions(self) -> dict[TopicPartition, Position]:
        group_id = self._settings.group_id
        return await committed_offsets(self._admin, group_id, self._requests())

    async def _retried(self, doing: str, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Retry until there is an answer: a coordinator may be moving."""
        async with answering(self._settings, f"group {self._settings.group_id}: {doing}"):
            return await retried(ask, self._settings.broker_timeout_seconds)

    async def _bounds(
        self, partitions: list[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Return the starts and the readable ends of the partitions."""
        self._consumer.assign(partitions)
        async with answering(self._settings, f"asking for the ends of {partitions[0].topic}"):
            starts = await self._consumer.beginning_offsets(partitions)
            return starts, await self._consumer.end_offsets(partitions)

    async def _log_ends(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of the partitions, open transactions' records included."""
        async with log_reader(self._settings) as consumer:
            consumer.assign(partitions)
            async with answering(self._settings, f"asking for the ends of {partitions[0].topic}"):
                ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
                return ends

    async def _read(self, topic: str, begin: Mapping[TopicPartition, int]) -> AsyncIterator[Record]:
        """Yield the records of a topic from these offsets to its present end."""
        self._consumer.assign(list(begin))
        for partition, offset in begin.items():
            self._consumer.seek(partition, offset)
        polls = polled(self._settings, self._consumer, topic, follow=False)
        async with aclosing(polls):
            async for records in polls:
                for record in records:
                    yield record


def _members(group: Group) -> dict[TopicPartition, str]:
    return {
        partition: member.instance_id or member.member_id
        for member in group.members
        for partition in member.partitions
    }


def _result(record: Record, verifier: Verifier | None) -> LastResult | None:
    id, status = None, None
    if verifier:
        try:
            result, _ = verified(record, verifier)
        except Refused:
            return None
        id, status = result.id, result.status
    return LastResult(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        appended_at=record.timestamp_ms / 1000,
        id=id,
        status=status,
    )


def day_ago() -> float:
    """Return the Unix seconds of a day ago."""
    return time.time() - 86_400
