"""The member of the consumer group: poll, rebalance, and a producer for each partition.

Exactly-once rests on the order at assignment: start the partition's producer (which fences the
former owner), then read the committed position, then seek. By then aiokafka already prefetches from
the offset that it read itself; those records are dropped, and the seek makes them come again.
"""

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from consumer.broker.beginnings import Beginnings
from consumer.broker.cluster import Cluster, TopicFacts
from consumer.broker.history import codecs_needed, read_back, record_of, stop_consumer
from consumer.broker.log_ends import LogEnd, LogEnds
from consumer.broker.open_transactions import OpenTransactions
from consumer.broker.rebalance import RebalanceListener
from consumer.broker.start_offsets import StartOffsets
from consumer.broker.transaction_counts import TransactionCounts
from consumer.broker.transactions import PartitionTransactions
from consumer.partition.offsets import PartitionId
from consumer.partition.worker import Commit, History
from consumer.runtime.readiness import Readiness
from imagelane.kafka.errors import answers_needed
from imagelane.kafka.header_names import tolerate_header_names
from imagelane.position import Position
from schemas import Record

log = structlog.get_logger()

CANCEL_SECONDS: Final = 0.5  # wait for a cancelled rebalance
FULL_SECONDS: Final = 0.005  # longest poll while a worker is full: it may soon take records
MAX_POLL_RECORDS: Final = 128  # some 6 ms of the event loop


class Workers(Protocol):
    """The workers of the assigned partitions."""

    def open(
        self, partition: PartitionId, position: Position, commit: Commit, history: History
    ) -> None:
        """Read the history before a position, then work on the partition from there."""

    async def close(self) -> None:
        """Finish and commit the records in flight, within a bound, or give them up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """The group and its timeouts. `client`: the arguments of every Kafka client."""

    client: dict[str, Any]
    group_id: str
    group_instance_id: str | None
    session_timeout_seconds: float
    transaction_timeout_seconds: float
    open_transaction_seconds: float


class KafkaStream:
    """One member of the consumer group."""

    def __init__(
        self,
        options: GroupOptions,
        cluster: Cluster,
        outputs: Sequence[TopicFacts],
        beginnings: Beginnings,
        replay_seconds: Mapping[str, float],
        readiness: Readiness,
    ) -> None:
        """Prepare a member; `replay_seconds`: length of the history by topic, for all it reads."""
        self._options = options
        self._cluster = cluster
        self._outputs = outputs
        self._replay_seconds = replay_seconds
        self._rebalancing: asyncio.Task[None] | None = None
        self._transactions: dict[PartitionId, PartitionTransactions] = {}
        # The last known positions of partitions that are not assigned here.
        self._known: dict[PartitionId, Position] = dict(beginnings.positions)
        self._fault: BaseException | None = None
        self.joined = False
        self.transaction_counts = TransactionCounts()
        session_ms = int(options.session_timeout_seconds * 1000)
        self._consumer = AIOKafkaConsumer(
            **options.client,
            group_id=options.group_id,
            group_instance_id=options.group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",  # `StartOffsets` logs and counts deleted records
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 10,
            # Polls may stop for long while the workers are full; heartbeats go on.
            max_poll_interval_ms=2**31 - 1,
        )
        self._open_transactions = OpenTransactions(
            self._consumer, readiness, bound_seconds=options.open_transaction_seconds
        )
        self._log_ends = LogEnds(self._consumer)
        self._starts = StartOffsets(
            self._consumer,
            beginnings,
            group_id=options.group_id,
            # aiokafka sends no heartbeat during an assignment.
            look_seconds=options.session_timeout_seconds / 3,
        )

    async def __aenter__(self) -> Self:
        tolerate_header_names()
        try:
            with answers_needed("connecting to the group"):
                await self._consumer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._rebalancing:  # aiokafka's stop would wait for it, and it starts producers
            self._rebalancing.cancel()
            await asyncio.wait({self._rebalancing}, timeout=CANCEL_SECONDS)
        await asyncio.gather(stop_consumer(self._consumer), self._stop_transactions())

    def join(self, workers: Workers) -> None:
        """Join the group; during `poll`, rebalances open and close `workers`."""
        listener = RebalanceListener(
            assign=lambda partitions: self.until_left(self.assign(partitions, workers)),
            revoke=lambda: self.revoke(workers),
            fail=self.fail,
        )
        self._consumer.subscribe(list(self._replay_seconds), listener=listener)

    async def poll(
        self, capacity: Mapping[PartitionId, int], timeout_seconds: float
    ) -> list[Record]:
        """Return records of partitions with capacity, at most as many as the fullest one can take.

        Also at most `MAX_POLL_RECORDS`: all of them start before the loop serves the device again.

        Raises:
            FatalError: an assignment or the group failed.
        """
        if self._fault:
            raise self._fault
        wanted = self._pause_and_resume(capacity)
        if len(wanted) < len(capacity):
            timeout_seconds = min(timeout_seconds, FULL_SECONDS)
        if not wanted:  # to aiokafka no partition means every partition
            await asyncio.sleep(timeout_seconds)
            with answers_needed("joining the group"):
                self._consumer._coordinator.check_errors()  # as getmany() does
            return []
        with answers_needed("fetching"), codecs_needed():
            try:
                batches = await self._consumer.getmany(
                    *wanted,
                    timeout_ms=int(timeout_seconds * 1000),
                    max_records=min(MAX_POLL_RECORDS, *(capacity[p] for p in wanted)),
                )
            except OffsetOutOfRangeError as exc:
                await self._starts.pass_deleted(exc.args[0])
                return []
        for partition in wanted:
            if not batches.get(partition):
                await self._open_transactions.check(partition)
        return [record_of(message) for batch in batches.values() for message in batch]

    def rewind(self, offsets: Mapping[PartitionId, int]) -> None:
        """Read partitions again, each from its offset on."""
        for partition in self._consumer.assignment():
            if (offset := offsets.get(partition)) is not None:
                log.info("partition set back", **partition._asdict(), offset=offset)
                self._consumer.seek(partition, offset)

    @property
    def deleted_unread(self) -> int:
        """Records deleted before they were read, since the start of the process."""
        return self._starts.deleted_unread

    async def log_ends(self, partitions: Collection[PartitionId]) -> dict[PartitionId, LogEnd]:
        """Return the log ends of partitions; those without a position here are left out."""
        return await self._log_ends.read(partitions)

    def _pause_and_resume(self, capacity: Mapping[PartitionId, int]) -> list[TopicPartition]:
        """Return the partitions with capacity, and have aiokafka fetch only those."""
        assigned = self._consumer.assignment()
        wanted = [p for p in assigned if capacity.get(p, 0) > 0]
        paused = self._consumer.paused()
        for partition in assigned:
            if partition in wanted and partition in paused:
                self._consumer.resume(partition)
            elif partition not in wanted and partition not in paused:
                self._consumer.pause(partition)
        return wanted

    async def assign(self, partitions: Sequence[TopicPartition], workers: Workers) -> None:
        """Open a worker for each partition, in the order explained at the top of this file."""
        for partition in partitions:
            transactions = PartitionTransactions(
                group_id=self._options.group_id,
                partition=partition,
                outputs=self._outputs,
                client=self._options.client,
                timeout_seconds=self._options.transaction_timeout_seconds,
                committed=lambda p=partition: self._cluster.committed(p),  # type: ignore[misc]
                known=self._known.get(partition),
                counts=self.transaction_counts,
            )
            self._transactions[partition] = transactions
            start = time.monotonic()
            position = await transactions.start() or await self._starts.begin(
                partition, transactions.commit
            )
            self._consumer.seek(partition, await self._starts.first_offset(partition, position))
            history = partial(
                read_back,
                self._options.client,
                partition,
                position.offset,
                self._replay_seconds[partition.topic],
            )
            workers.open(partition, position, transactions.commit, history)
            log.info(
                "partition assigned",
                topic=partition.topic,
                partition=partition.partition,
                offset=position.offset,
                seconds=round(time.monotonic() - start, 3),
            )
        self.joined = True  # only now: the watchdog must notice an assignment that hangs

    async def until_left(self, work: Coroutine[Any, Any, None]) -> None:
        """Await a rebalance's work, which `__aexit__` may cancel."""
        task = self._rebalancing = asyncio.create_task(work)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if not task.cancelled():
            task.result()

    async def revoke(self, workers: Workers) -> None:
        """Close the workers, then their producers."""
        self.joined = False
        self._open_transactions.forget()
        await workers.close()
        await self._stop_transactions()

    async def _stop_transactions(self) -> None:
        transactions, self._transactions = self._transactions, {}
        await asyncio.gather(*(t.stop() for t in transactions.values()))
        self._known |= {p: t.committed for p, t in transactions.items() if t.committed}

    def fail(self, fault: BaseException) -> None:
        """Make the next poll raise: aiokafka swallows what a rebalance callback raises."""
        self._fault = self._fault or fault
