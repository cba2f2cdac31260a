"""The topics of requests: poll and rebalance; each partition's commits go by its own transactions.

The order on assignment makes exactly-once true: start the partition's producer (which fences the
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
from aiokafka.errors import OffsetOutOfRangeError, UnsupportedCodecError

from consumer.broker.beginnings import Beginnings
from consumer.broker.cluster import Cluster, TopicFacts
from consumer.broker.history import read_back, record_of
from consumer.broker.log_ends import LogEnd, LogEnds
from consumer.broker.open_transactions import OpenTransactions
from consumer.broker.rebalance import Rebalance
from consumer.broker.start_offsets import StartOffsets
from consumer.broker.transaction_counts import TransactionCounts
from consumer.broker.transactions import PartitionTransactions
from consumer.partition.offsets import PartitionId
from consumer.partition.worker import Commit, History
from consumer.runtime.readiness import Readiness
from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.errors import answers_needed
from imagelane.kafka.header_names import tolerate_header_names
from imagelane.position import Position
from schemas import Record

log = structlog.get_logger()

STOP_SECONDS: Final = 2
GIVE_UP_SECONDS: Final = 0.5  # for what is cancelled
ROOM_SECONDS: Final = 0.005  # how soon a worker that was full is looked at again
MOST_AT_ONCE: Final = 128  # records of one poll: some 6 ms of the loop


class Workers(Protocol):
    """Who works on the partitions."""

    def open(
        self, partition: PartitionId, position: Position, commit: Commit, history: History
    ) -> None:
        """Begin the work on a partition from a position, after a look at what was before it."""

    async def close(self) -> None:
        """Finish or give up what is in flight, and commit it; within a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """Which group is joined, and how patient it is. `client`: what every client is made with."""

    client: dict[str, Any]
    group_id: str
    group_instance_id: str | None
    session_timeout_seconds: float
    transaction_timeout_seconds: float
    open_transaction_seconds: float


class KafkaStream:
    """One member of the consumer group, once it has joined."""

    def __init__(
        self,
        options: GroupOptions,
        cluster: Cluster,
        outputs: Sequence[TopicFacts],
        beginnings: Beginnings,
        replay_seconds: Mapping[str, float],
        readiness: Readiness,
    ) -> None:
        """Prepare a member that reads the topics of `replay_seconds`: how far back by topic."""
        self._options = options
        self._cluster = cluster
        self._outputs = outputs
        self._replay_seconds = replay_seconds
        self._rebalancing: asyncio.Task[None] | None = None
        self._transactions: dict[PartitionId, PartitionTransactions] = {}
        # The last positions of partitions that are not held: read before, or given away.
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
            auto_offset_reset="none",  # what the log has lost is said and counted, not jumped over
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 10,
            # A full worker is not polled, maybe for long; the heartbeat goes on.
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
            # No heartbeat is sent meanwhile.
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
            await asyncio.wait({self._rebalancing}, timeout=GIVE_UP_SECONDS)
        # While a broker is away aiokafka's stop waits long, or ends as if it had been cancelled.
        stopping = asyncio.ensure_future(self._consumer.stop())
        await asyncio.gather(
            asyncio.wait({stopping}, timeout=STOP_SECONDS), self._stop_transactions()
        )
        stopping.cancel()

    def join(self, workers: Workers) -> None:
        """Join the group; partitions come and go by way of `workers`, while `poll` is called."""
        listener = Rebalance(
            assign=lambda partitions: self.until_left(self.assign(partitions, workers)),
            revoke=lambda: self.revoke(workers),
            fail=self.fail,
        )
        self._consumer.subscribe(list(self._replay_seconds), listener=listener)

    async def poll(self, room: Mapping[PartitionId, int], timeout_seconds: float) -> list[Record]:
        """Return the next records of partitions with room, at most what the fullest one can take.

        And at most `MOST_AT_ONCE`: each begins its work at once, and the device waits meanwhile.

        Raises:
            FatalError: an assignment failed, or the group does.
        """
        if self._fault:
            raise self._fault
        wanted = self._pause_and_resume(room)
        if len(wanted) < len(room):
            timeout_seconds = min(timeout_seconds, ROOM_SECONDS)
        if not wanted:  # to aiokafka no partition means every partition
            await asyncio.sleep(timeout_seconds)
            with answers_needed("joining the group"):
                self._consumer._coordinator.check_errors()  # as the call would that is not made
            return []
        with answers_needed("fetching"):
            try:
                batches = await self._consumer.getmany(
                    *wanted,
                    timeout_ms=int(timeout_seconds * 1000),
                    max_records=min(MOST_AT_ONCE, *(room[p] for p in wanted)),
                )
            except OffsetOutOfRangeError as exc:
                await self._starts.pass_deleted(exc.args[0])
                return []
            except UnsupportedCodecError as exc:
                line = f"topic: no codec for its records: {exc!r}"
                raise FatalError(ExitCode.TOPIC, line) from exc
        for partition in wanted:
            if not batches.get(partition):
                await self._open_transactions.look(partition)
        return [record_of(message) for batch in batches.values() for message in batch]

    def set_back(self, offsets: Mapping[PartitionId, int]) -> None:
        """Have the records of partitions come again, from an offset on."""
        for partition in self._consumer.assignment():
            if (offset := offsets.get(partition)) is not None:
                log.info("partition set back", **partition._asdict(), offset=offset)
                self._consumer.seek(partition, offset)

    @property
    def deleted_unread(self) -> int:
        """Records that the log lost before they were read, since the start of the process."""
        return self._starts.deleted_unread

    async def log_ends(self, partitions: Collection[PartitionId]) -> dict[PartitionId, LogEnd]:
        """Return where partitions end; those without a position here are left out."""
        return await self._log_ends.read(partitions)

    def _pause_and_resume(self, room: Mapping[PartitionId, int]) -> list[TopicPartition]:
        """Let the partitions with room be fetched, and return them."""
        assigned = self._consumer.assignment()
        wanted = [p for p in assigned if room.get(p, 0) > 0]
        paused = self._consumer.paused()
        for partition in assigned:
            if partition in wanted and partition in paused:
                self._consumer.resume(partition)
            elif partition not in wanted and partition not in paused:
                self._consumer.pause(partition)
        return wanted

    async def assign(self, partitions: Sequence[TopicPartition], workers: Workers) -> None:
        """Open a worker for each partition, in the order that the head of this file gives."""
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
        self.joined = True  # not before: an assignment that hangs is watched as well

    async def until_left(self, work: Coroutine[Any, Any, None]) -> None:
        """Await a rebalance's work, or its end when the stream is left meanwhile."""
        task = self._rebalancing = asyncio.create_task(work)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if not task.cancelled():
            task.result()

    async def revoke(self, workers: Workers) -> None:
        """Close the workers, then let their partitions go."""
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
