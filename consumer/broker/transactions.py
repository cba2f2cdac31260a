"""The transactional producer of one worker: outputs and input position together, or not at all.

Its transactional id is made of group, topic and partition, so that whoever starts a producer for a
partition fences whoever held it before. aiokafka speaks the first version of the transaction
protocol: no fencing by group generation, and an answer that does not come says nothing about the
transaction. So after any doubt the producer is thrown away, a new one is started (which settles
what was open), and the committed position says what became of it. Outcomes stay in memory
meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RequestTimedOutError,
)
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.structs import OffsetAndMetadata

from consumer.broker.cluster import TopicFacts
from consumer.partition.offsets import Position
from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.admin import Unanswered
from schemas import OutgoingRecord

log = structlog.get_logger()

MAX_COMMIT_TIMEOUTS: Final = (
    10  # of these timeouts: how long a commit waits for the broker to come back
)
RETRY_SECONDS: Final = 1
STOP_SECONDS: Final = 2
MAX_REQUEST_BYTES: Final = 8 * 2**20  # the topic's own limit is the one that counts
# A partition's batches go one after the other, each a round trip: of aiokafka's 16 KiB a commit of
# 500 results would wait for some thirty.
BATCH_BYTES: Final = 256 * 1024
_PARTITIONER: Final = DefaultPartitioner()  # Kafka's own: murmur2 of the key
_FENCED: Final = (ProducerFenced, InvalidProducerEpoch, InvalidTxnState)


class EndTxnUnanswered(Exception):
    """No KafkaError, which aiokafka would answer by sending the request again."""


_UNANSWERED: Final = (TimeoutError, KafkaError, EndTxnUnanswered, Unanswered)


class PartitionTransactions:
    """Commits for one partition, with records for the topics `outputs`.

    `committed` reads the partition's position from the group's coordinator; `known` is the last one
    that this process has read or committed, if it had the partition before.
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
    ) -> None:
        self._group_id = group_id
        self._partition = partition
        self._outputs = outputs
        self._transactional_id = f"{group_id}-{partition.topic}-{partition.partition}"
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._read_committed = committed
        self._committed = known
        self._producer: AIOKafkaProducer | None = None

    @property
    def committed(self) -> Position | None:
        """The last position that was read or committed here; None: the group has none."""
        return self._committed

    async def start(self) -> Position | None:
        """Fence the former owner, settle what it left open, and only then read the position.

        Raises:
            FatalError: `POSITION`: the position vanished; the coordinator refuses to tell it.
        """
        await self._start()
        found = await self._position()
        _went_back(found, self._committed)  # only said: whoever reset it wants the work redone
        self._committed = found
        await self._abort_orphaned_transaction(self._committed)
        self._committed = await self._position()
        return self._committed

    async def _position(self) -> Position | None:
        """Read the position; one that was known and is gone must not be taken for a beginning."""
        found, known = await self._read_committed(), self._committed
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
            # Longer than any wait here, so that no request is sent again for its timeout.
            request_timeout_ms=int(self._timeout_seconds * 1000) + 1000,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=min(BATCH_BYTES, *(topic.max_batch_bytes for topic in self._outputs)),
            linger_ms=0,
        )
        self._producer = producer
        _end_once(producer.client)
        async with asyncio.timeout(self._timeout_seconds):
            await producer.start()

    async def _abort_orphaned_transaction(self, position: Position | None) -> None:
        """Abort a transaction of nothing over everything that a former one may have touched.

        A broker that dies right after the answer to a commit can end the transaction without
        writing its markers (seen on Kafka 4.3.1, one broker): outputs and position stay hidden
        until the next marker of this transactional id. That must be an abort, since the records
        come again.
        """
        producer = self._producer
        assert producer is not None
        async with asyncio.timeout(self._timeout_seconds):
            await producer.begin_transaction()
            for topic in self._outputs:
                for number in await producer.partitions_for(topic.name):
                    partition = TopicPartition(topic.name, number)
                    producer._txn_manager.maybe_add_partition_to_txn(partition)
            if position:
                await self._send_position(producer, position)
            await producer.abort_transaction()

    async def stop(self) -> None:
        """Close the producer; a transaction still open is left to the next owner's start."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await producer.stop()
        except _UNANSWERED as exc:
            # aiokafka has no way to close without sending what it holds, and the broker may be
            # away.
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
        give_up, outcome_unknown = (
            time.monotonic() + MAX_COMMIT_TIMEOUTS * self._timeout_seconds,
            False,
        )
        while time.monotonic() < give_up:
            try:
                # Nothing is written again before the position was read.
                if outcome_unknown and await self._settle(position):
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
        # Not aiokafka's context manager: it aborts on an error, which can hang like the commit did.
        await self._producer.begin_transaction()
        await _send(self._producer, outputs)
        await self._send_position(self._producer, position)
        await self._producer.commit_transaction()

    async def _send_position(self, producer: AIOKafkaProducer, position: Position) -> None:
        offset = OffsetAndMetadata(position.offset, position.metadata)
        await producer.send_offsets_to_transaction({self._partition: offset}, self._group_id)

    async def _settle(self, position: Position) -> bool:
        """Start a new producer and tell whether the transaction in doubt went through."""
        await self.stop()
        await self._start()
        found = await self._position()
        if found == self._committed:
            # It may be hidden, and the outputs are written again.
            await self._abort_orphaned_transaction(found)
            found = await self._position()
        if found == position:
            return True
        if found != self._committed and not _went_back(found, self._committed):
            raise self._fenced()
        return False

    def _fenced(self) -> FatalError:
        return FatalError(
            ExitCode.FENCED,
            f"fenced: another consumer took partition {self._partition.partition}, or a "
            "transaction outlived TRANSACTION_TIMEOUT_SECONDS; nothing is lost, start again",
        )


async def _send(producer: AIOKafkaProducer, outputs: Sequence[OutgoingRecord]) -> None:
    """Send whole batches: aiokafka's way of one record alone costs more than all that we do."""
    topics = {out.topic for out in outputs}
    partitions = {topic: sorted(await producer.partitions_for(topic)) for topic in topics}
    batches: dict[TopicPartition, Any] = {}
    sent: list[asyncio.Future[Any]] = []
    for out in outputs:
        choice = partitions[out.topic]
        target = TopicPartition(out.topic, _PARTITIONER(out.key, choice, choice))
        if target not in batches:
            batches[target] = producer.create_batch()
        if not _append(batches[target], out):
            full, batches[target] = batches[target], producer.create_batch()
            _append(batches[target], out)  # the first one fits, whatever its size
            sent.append(await producer.send_batch(full, out.topic, partition=target.partition))
    for target, batch in batches.items():
        sent.append(await producer.send_batch(batch, target.topic, partition=target.partition))
    await asyncio.gather(*sent)


def _append(batch: Any, out: OutgoingRecord) -> bool:
    """Tell whether there was room for the record."""
    headers = list(out.headers)
    return batch.append(timestamp=None, key=out.key, value=out.value, headers=headers) is not None


def _end_once(client: Any) -> None:
    """Let a lost connection end the producer instead of sending EndTxn again.

    The first one may still be on its way; with the same epoch it would end the next transaction.
    """
    send = client.send

    async def send_once(node_id: int, request: Any, **options: Any) -> Any:
        try:
            return await send(node_id, request, **options)
        except (KafkaConnectionError, RequestTimedOutError) as exc:
            if isinstance(request, EndTxnRequest):
                raise EndTxnUnanswered from exc
            raise

    client.send = send_once


def _went_back(found: Position | None, before: Position | None) -> bool:
    """Tell whether the group's position went back behind a commit that was answered.

    A broker that dies between the answer and the markers can lose the position and keep the outputs
    (seen on Kafka 4.3.1, one broker). Kafka lets nobody move the position of a group with members,
    so ours is the one that holds.
    """
    if found is None or before is None or found.offset >= before.offset:
        return False
    log.warning("position went back", found=found.offset, was=before.offset)
    return True
