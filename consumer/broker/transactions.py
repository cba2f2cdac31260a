"""The transactional producer of one partition: commits outputs and input position atomically.

The transactional id is group, topic and partition, so a start fences the partition's former owner.
A commit is in one of three states:

    written ──answer──► committed
       │ no answer, or an error
       ▼
    unknown ──a new producer reads the position──► committed, or written again

Invariant: outputs are written a second time only after the committed position was read.

aiokafka speaks the first version of the transaction protocol: the broker does not fence by group
generation, and a missing answer leaves open whether the transaction was committed. So a new
producer replaces the old one and aborts a transaction still open; then the committed position shows
which of both happened. The outcomes stay in memory until then. A position below the last committed
one was lost by a broker, so the commit is written again. Any other position is a commit of another
owner: the process ends.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata

from consumer.broker.batches import send_batches
from consumer.broker.cluster import TopicFacts
from consumer.broker.end_txn import EndTxnUnanswered, send_end_txn_once
from consumer.broker.transaction_counts import TransactionCounts
from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.admin import fetch_positions
from imagelane.kafka.errors import Unanswered
from imagelane.position import Position
from schemas import OutgoingRecord

log = structlog.get_logger()

MAX_COMMIT_TIMEOUTS: Final = 10  # a commit fails after 10 transaction timeouts
RETRY_SECONDS: Final = 1
STOP_SECONDS: Final = 2
MAX_REQUEST_BYTES: Final = 8 * 2**20  # so large that the topic's own limit applies
# Each batch of a partition costs a round trip: with aiokafka's 16 KiB a commit of 500 results takes
# some thirty.
BATCH_BYTES: Final = 256 * 1024
_FENCED: Final = (ProducerFenced, InvalidProducerEpoch, InvalidTxnState)
_UNANSWERED: Final = (TimeoutError, KafkaError, EndTxnUnanswered, Unanswered)


class PartitionTransactions:
    """Commits for one partition, with records for the topics `outputs`.

    `committed` reads the partition's position from the group's coordinator; `known` is the position
    that this process last read or committed in an earlier assignment.
    """

    def __init__(
        self,
        *,
        group_id: str,
        partition: TopicPartition,
        outputs: Sequence[TopicFacts],
        client: dict[str, Any],
        timeout_seconds: float,
        committed: Callable[[], Awaitable[Position | None]],
        known: Position | None = None,
        counts: TransactionCounts | None = None,
    ) -> None:
        self._group_id = group_id
        self._partition = partition
        self._outputs = outputs
        self._transactional_id = f"{group_id}-{partition.topic}-{partition.partition}"
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._read_committed = committed
        self._committed = known
        self._counts = counts or TransactionCounts()
        self._producer: AIOKafkaProducer | None = None

    @property
    def committed(self) -> Position | None:
        """The position last read or committed here; None: the group has none."""
        return self._committed

    async def start(self) -> Position | None:
        """Fence the former owner, abort its open transaction, then read the position.

        Raises:
            FatalError: `POSITION`: the group lost the position; or the coordinator refuses.
        """
        before = self._committed
        await self._start()
        self._committed = self._not_lost(await self._read_committed())
        self._committed = await self._confirmed_position()
        _went_back(self._committed, before)  # logged only: whoever reset it wants the work redone
        return self._committed

    async def _confirmed_position(self) -> Position | None:
        """Abort an empty transaction and read the position from the broker that took its offset.

        A coordinator that was suspended answers with old positions until it learns that it was
        replaced (seen on Kafka 4.3.1, 40 of 40 times). It cannot take an offset, which needs the
        in-sync replicas. A later commit of another owner fences this producer.
        """
        give_up = time.monotonic() + self._timeout_seconds
        while True:
            await self._abort_orphaned_transaction()
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return self._not_lost(await self._position_at_coordinator())
            except Unanswered as exc:
                if time.monotonic() >= give_up:
                    raise
                log.warning("position not answered", reason=str(exc))
            await asyncio.sleep(RETRY_SECONDS)

    async def _position_at_coordinator(self) -> Position | None:
        producer = self._producer
        assert producer is not None
        coordinator = producer._sender._coordinators[CoordinationType.GROUP]
        positions = await fetch_positions(
            lambda request: producer.client.send(
                coordinator, request, group=ConnectionGroup.COORDINATION
            ),
            self._group_id,
            [self._partition],
        )
        return positions.get(self._partition)

    def _not_lost(self, found: Position | None) -> Position | None:
        """Return `found`; raise if it is None after a known position: the group is not new."""
        known = self._committed
        if found is None and known is not None:
            raise FatalError(
                ExitCode.POSITION,
                f"position: group {self._group_id} has no position of {self._partition.topic}-"
                f"{self._partition.partition} any longer, which was {known.offset}; nothing was "
                "written after that. Set it again with kafka-consumer-groups.sh --reset-offsets "
                f"--to-offset {known.offset}, then start again",
            )
        return found

    async def _start(self) -> None:
        producer = AIOKafkaProducer(
            **self._client,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=int(self._timeout_seconds * 1000),
            # Longer than any timeout here, so that aiokafka sends no request twice.
            request_timeout_ms=int(self._timeout_seconds * 1000) + 1000,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=min(BATCH_BYTES, *(topic.max_batch_bytes for topic in self._outputs)),
            linger_ms=0,
        )
        self._producer = producer
        send_end_txn_once(producer.client)
        async with asyncio.timeout(self._timeout_seconds):
            await producer.start()

    async def _abort_orphaned_transaction(self) -> None:
        """Abort an empty transaction over all output partitions and the group's position.

        A broker that dies right after the answer to a commit can end the transaction without
        writing its markers (seen on Kafka 4.3.1, one broker): outputs and position stay hidden
        until the next marker of this transactional id. The marker must be an abort, since the
        records are processed again.
        """
        producer = self._producer
        assert producer is not None
        async with asyncio.timeout(self._timeout_seconds):
            await producer.begin_transaction()
            for topic in self._outputs:
                for number in await producer.partitions_for(topic.name):
                    partition = TopicPartition(topic.name, number)
                    producer._txn_manager.maybe_add_partition_to_txn(partition)
            await self._send_position(producer, self._committed or Position(offset=0))
            await producer.abort_transaction()
        self._counts.aborted += 1

    async def stop(self) -> None:
        """Close the producer; the next owner's start aborts a transaction still open."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await producer.stop()
        except _UNANSWERED as exc:
            # aiokafka's stop sends its buffer first, which takes for ever without a broker.
            log.warning("producer discarded", partition=self._partition.partition, reason=repr(exc))
            with suppress(*_UNANSWERED):
                async with asyncio.timeout(STOP_SECONDS):
                    await producer._sender.close()
            await producer.client.close()

    async def commit(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        """Write the outputs and commit the position, exactly once.

        Raises:
            FatalError: another consumer owns the partition, a record is too large for its topic, or
                the broker does not answer.
        """
        give_up = time.monotonic() + MAX_COMMIT_TIMEOUTS * self._timeout_seconds
        outcome_unknown = False
        while time.monotonic() < give_up:
            try:
                if outcome_unknown and await self._resolve(position):
                    break
                outcome_unknown = False
                async with asyncio.timeout(self._timeout_seconds):
                    await self._transaction(outputs, position)
                    break
            except _FENCED as exc:
                raise self._fenced() from exc
            except MessageSizeTooLargeError as exc:
                raise FatalError(ExitCode.TOPIC, f"topic: {exc}; raise max.message.bytes") from exc
            except _UNANSWERED as exc:
                log.warning("commit in doubt", reason=repr(exc))
                self._counts.in_doubt += 1
                outcome_unknown = True
                await asyncio.sleep(RETRY_SECONDS)
        else:
            seconds = MAX_COMMIT_TIMEOUTS * self._timeout_seconds
            raise FatalError(
                ExitCode.BROKER, f"broker: no transaction went through for {seconds:g} s"
            )
        self._committed = position

    async def _transaction(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        assert self._producer is not None
        # Not aiokafka's context manager: on an error it aborts, which can hang as the commit did.
        await self._producer.begin_transaction()
        await send_batches(self._producer, outputs)
        await self._send_position(self._producer, position)
        await self._producer.commit_transaction()

    async def _send_position(self, producer: AIOKafkaProducer, position: Position) -> None:
        offset = OffsetAndMetadata(position.offset, position.metadata)
        await producer.send_offsets_to_transaction({self._partition: offset}, self._group_id)

    async def _resolve(self, position: Position) -> bool:
        """Start a new producer; return True if the unknown transaction was committed."""
        await self.stop()
        await self._start()
        found = await self._read_committed()
        if _is_before(found, self._committed):  # a stale answer, or a lost position
            await asyncio.sleep(RETRY_SECONDS)
            found = await self._read_committed()
        lost = _went_back(found, self._committed)
        if found != position and not lost:
            found = await self._confirmed_position()  # aborts outputs that a lost marker hides
        if found == position:
            return True
        if found != self._committed and not lost:
            raise self._fenced()
        return False

    def _fenced(self) -> FatalError:
        return FatalError(
            ExitCode.FENCED,
            f"fenced: another consumer took partition {self._partition.partition}, or a "
            "transaction outlived TRANSACTION_TIMEOUT_SECONDS; nothing is lost, start again",
        )


def _went_back(found: Position | None, before: Position | None) -> bool:
    """Return True, and log it, if `found` is older than the acknowledged position `before`.

    A broker that dies between the answer and the markers can lose the position and keep the outputs
    (seen on Kafka 4.3.1, one broker). Kafka refuses to reset the position of a group with members,
    so the acknowledged one is right.
    """
    if not _is_before(found, before):
        return False
    log.warning("position went back", found=found and found.offset, was=before and before.offset)
    return True


def _is_before(found: Position | None, before: Position | None) -> bool:
    return found is not None and before is not None and found.offset < before.offset
