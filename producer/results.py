"""Results as they come, verified and each once: for indexers, exports, the gallery and `results`.

The topic can have two results of an id: a redriven request has a second one, and anybody who may
write to the topic can append a copy of an old one. The later time of signing counts, then the later
place; so a reader that upserts by id ends with the same results despite copies.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final, Literal, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from imagelane.exits import ExitCode, FatalError
from producer.connection import answering, existing_partitions, group_reader, reader
from producer.errors import NotOpen
from producer.group_commits import GroupCommits
from producer.records import polled
from producer.settings import ProducerSettings
from producer.verification import verified
from schemas import Record, Refused, Result, Verifier

# Results are appended soon after their signing; clocks may differ by as much as for requests.
CLOCK_SKEW_SECONDS: Final = 300
_MAX_IDS: Final = 500_000  # of 26 characters each: 170 MB

Status = Literal["ok", "error"]
OnUnverifiable = Callable[[Record, Refused], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """A result whose signature holds, its time of signing (Unix seconds) and its place.

    `value` is its JSON and `key` the record's, as received: the request's key, else its id.
    """

    result: Result
    signed_at: int
    topic: str
    partition: int
    offset: int
    value: bytes
    key: bytes | None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.result.id

    @property
    def is_of_image(self) -> bool:
        """Whether it can be an image's: an older consumer's `error` does not say."""
        return self.result.status == "error" or self.result.image is not None

    @property
    def rank(self) -> tuple[int, int, int]:
        """Of two results of an id the one with the higher rank counts."""
        return self.signed_at, self.partition, self.offset


class LatestResults:
    """Remembers the latest result of each of the last `max_ids` ids."""

    def __init__(self, max_ids: int = _MAX_IDS) -> None:
        self._max_ids = max_ids
        self._held: OrderedDict[str, tuple[int, int, int, int]] = OrderedDict()

    def take(
        self, id: str, *, signed_at: int, partition: int, offset: int, value: bytes = b""
    ) -> bool:
        """Return whether this result is later than its id's earlier ones; if so, remember it.

        A copy, with the same second of signing and the same `value`, is not: it has nothing new.
        """
        rank, held = (signed_at, partition, offset, hash(value)), self._held.get(id)
        if held and (rank <= held or (rank[0], rank[3]) == (held[0], held[3])):
            return False
        self._held[id] = rank
        self._held.move_to_end(id)
        if len(self._held) > self._max_ids:
            self._held.popitem(last=False)
        return True


class ResultReader:
    """Reads the results topic: `async with` opens it, `async for` gives a `ReadResult` at a time.

    Without a group it begins at the start of the topic, at `since` or at `start` (offsets by
    partition); `deleted_unread_count` counts the records from `start` on that the topic has lost.

    With `group_id` it begins at the group's commits, shares the partitions with other members, and
    commits handled results. A request for the next result says that the last one is handled, so a
    result whose handling failed comes again. With `auto_commit=False` `commit` alone commits.

    `follow=False` ends at the topic's end at the opening. `statuses` and `since` (Unix seconds, of
    the signing) select results. A record that does not verify is counted and left out;
    `on_unverifiable` is called with it.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        *,
        group_id: str | None = None,
        follow: bool = True,
        since: float | None = None,
        statuses: Collection[Status] = ("ok", "error"),
        start: Mapping[int, int] | None = None,
        auto_commit: bool = True,
        on_unverifiable: OnUnverifiable | None = None,
        latest: LatestResults | None = None,
    ) -> None:
        self.unverifiable_count = 0
        self.deleted_unread_count = 0
        self._settings = settings
        self._topic = settings.results_topic
        self._verifier = Verifier(settings.keys, self._topic)
        self._group_id, self._follow, self._start = group_id, follow, start or {}
        self._since, self._statuses = since, frozenset(statuses)
        self._on_unverifiable = on_unverifiable
        self._latest = latest or LatestResults()
        self._stack = AsyncExitStack()
        self._consumer: AIOKafkaConsumer | None = None
        self._given: dict[TopicPartition, int] = {}
        self._begins: dict[TopicPartition, int] = {}
        self._commits = GroupCommits(auto=auto_commit and group_id is not None)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            FatalError: no broker answers, the topic does not exist, or it ends before `start`.
        """
        partitions = await existing_partitions(self._settings, (self._topic,))
        async with AsyncExitStack() as stack:
            if self._group_id is None:
                consumer = await stack.enter_async_context(reader(self._settings))
                consumer.assign(partitions)
                async with answering(self._settings, f"looking for the start of {self._topic}"):
                    await self._seek(consumer, partitions)
            else:
                consumer = await stack.enter_async_context(
                    group_reader(self._settings, self._group_id)
                )
                consumer.subscribe([self._topic], listener=self._commits)
            self._consumer = self._commits.consumer = consumer
            stack.push_async_callback(self._commits.commit)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._consumer = self._commits.consumer = None

    @property
    def positions(self) -> dict[int, int]:
        """The offset after the last given record by partition, for a later `start`."""
        return {partition.partition: offset for partition, offset in self._given.items()}

    @property
    def behind_count(self) -> int:
        """How many records are between the last given one and the end, as far as known."""
        consumer, behind = self._opened(), 0
        for partition in consumer.assignment():
            end = consumer.highwater(partition)
            given = self._given.get(partition, self._begins.get(partition))
            if end is not None and given is not None:
                behind += max(0, end - given)
        return behind

    async def __aiter__(self) -> AsyncIterator[ReadResult]:
        """Yield one result after the other.

        Raises:
            FatalError: the brokers can no longer be read.
            NotOpen: it was not opened by `async with`.
        """
        async for records in self._polls():
            for record in records:
                partition = TopicPartition(record.topic, record.partition)
                if partition not in self._opened().assignment():
                    continue  # another member has it by now, and gets this record
                self._given[partition] = record.offset + 1
                if one := self._read(record):
                    yield one
                await self._commits.handled({partition: record.offset + 1})

    async def batches(self) -> AsyncIterator[list[ReadResult]]:
        """Yield up to 500 results at once, and an empty list twice a second while none comes.

        Raises as `async for` does.
        """
        async for records in self._polls():
            results = [one for record in records if (one := self._read(record))]
            ends = {TopicPartition(r.topic, r.partition): r.offset + 1 for r in records}
            self._given.update(ends)
            yield results
            await self._commits.handled(ends)

    async def commit(self) -> None:
        """Commit all results given so far, the present one included.

        Raises:
            NotOpen: it was opened without `group_id`, or not at all.
        """
        self._opened()
        if self._group_id is None:
            raise NotOpen("nothing to commit to: open the reader with `group_id=...`")
        self._commits.done.update(self._given)
        await self._commits.commit()

    async def _polls(self) -> AsyncIterator[list[Record]]:
        polls = polled(self._settings, self._opened(), self._topic, follow=self._follow)
        async with aclosing(polls):
            async for records in polls:
                yield records

    async def _seek(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        await consumer.seek_to_beginning(*partitions)
        if self._since is not None and self._since > CLOCK_SKEW_SECONDS:
            earliest_ms = int((self._since - CLOCK_SKEW_SECONDS) * 1000)
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, earliest_ms))
            ends = await consumer.end_offsets(partitions)
            for partition, place in found.items():
                consumer.seek(partition, place.offset if place else ends[partition])
        for partition in partitions:
            if partition.partition in self._start:
                await self._seek_to_start(consumer, partition)
            self._begins[partition] = await consumer.position(partition)

    async def _seek_to_start(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
        start = self._start[partition.partition]
        first = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        if start > end:
            raise FatalError(
                ExitCode.TOPIC,
                f"{partition.topic}[{partition.partition}] ends at {end} and was read to {start}: "
                "the topic was made anew, so what was made of the old one is put aside by hand",
            )
        self.deleted_unread_count += max(0, first - start)
        consumer.seek(partition, max(first, start))

    def _read(self, record: Record) -> ReadResult | None:
        try:
            result, signed_at = verified(record, self._verifier)
        except Refused as refused:
            self.unverifiable_count += 1
            if self._on_unverifiable:
                self._on_unverifiable(record, refused)
            return None
        value = record.value or b""
        is_latest = self._latest.take(
            result.id,
            signed_at=signed_at,
            partition=record.partition,
            offset=record.offset,
            value=value,
        )
        if not is_latest:
            return None
        if result.status not in self._statuses or signed_at < (self._since or 0):
            return None
        return ReadResult(
            result=result,
            signed_at=signed_at,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            value=value,
            key=record.key,
        )

    def _opened(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise NotOpen("the reader is not open: use `async with ResultReader(...) as reader`")
        return self._consumer
