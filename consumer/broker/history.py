"""Reads a partition's records before its position: the replay window after a restart or a move.

The log itself holds them, so no other store is needed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import UnsupportedCodecError

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.errors import answers_needed
from imagelane.kafka.header_names import Unread
from schemas import Record, TimestampType

MAX_VERIFIED: Final = 200_000  # a window of 20 minutes at 160 records a second; bounds the start
CHUNK_OFFSETS: Final = 50_000
BEFORE_OFFSETS: Final = 1_000  # read before the window if no record in it verifies
STOP_SECONDS: Final = 2
_POLL_MS: Final = 500
_TYPES: Final = tuple(TimestampType)  # by Kafka's number; a call of the enum takes 1 µs more

Recalled = TypeVar("Recalled")
Recall = Callable[[Record], Recalled | None]


@contextmanager
def codecs_needed() -> Iterator[None]:
    """Raise `FatalError` for records whose codec is not installed."""
    try:
        yield
    except UnsupportedCodecError as exc:
        line = f"topic: no codec for its records: {exc!r}"
        raise FatalError(ExitCode.TOPIC, line) from exc


@asynccontextmanager
async def open_reader(client: Mapping[str, Any]) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a reader of committed records without a group; the caller assigns and seeks."""
    consumer = AIOKafkaConsumer(
        **client, group_id=None, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        if not await stop_consumer(consumer):
            await consumer._client.close()


async def stop_consumer(consumer: AIOKafkaConsumer) -> bool:
    """Stop a consumer; return False after `STOP_SECONDS`, or if aiokafka gave up.

    While a broker is away aiokafka's stop waits long, or ends as if it had been cancelled.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    return not (stopping.cancel() or stopping.cancelled())


async def read_back(
    client: Mapping[str, Any],
    partition: TopicPartition,
    end_offset: int,
    window_seconds: float,
    recall: Recall[Recalled],
) -> list[Recalled]:
    """Return the results of `recall` for the last records before `end_offset`, oldest first.

    The window of `window_seconds` ends at the time of the record at `end_offset`, or now if there
    is none yet. `MAX_VERIFIED` bounds the results that are not None, so forgeries displace no
    verified record; hence the log is read backwards, in chunks.

    Raises:
        FatalError: the brokers do not answer, or refuse; a codec is not installed.
    """
    with answers_needed("reading back what was before the position"), codecs_needed():
        async with open_reader(client) as consumer:
            consumer.assign([partition])
            return await _read_back(consumer, partition, end_offset, window_seconds, recall)


async def _read_back(
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    end_offset: int,
    window_seconds: float,
    recall: Recall[Recalled],
) -> list[Recalled]:
    chunks: list[list[Recalled]] = []  # newest first
    until = await _time_of(consumer, partition, end_offset)
    since = int((until - window_seconds) * 1000)
    found = (await consumer.offsets_for_times({partition: max(0, since)}))[partition]
    begin = min(found.offset if found else end_offset, end_offset)
    high = end_offset
    while high > begin and sum(map(len, chunks)) < MAX_VERIFIED:
        low = max(begin, high - CHUNK_OFFSETS)
        chunks.append(await _recall(consumer, partition, low, high, recall))
        high = low
    if not any(chunks):
        # After a quiet night the window is empty; older records can still prove our secret.
        await _recall(consumer, partition, max(0, begin - BEFORE_OFFSETS), begin, recall)
    return list(chain.from_iterable(reversed(chunks)))


async def _recall(
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    low: int,
    high: int,
    recall: Recall[Recalled],
) -> list[Recalled]:
    records = _records(consumer, partition, low, high)
    return [made async for record in records if (made := recall(record)) is not None]


async def _records(
    consumer: AIOKafkaConsumer, partition: TopicPartition, low: int, high: int
) -> AsyncIterator[Record]:
    """Yield the records of the offsets from `low` to below `high`."""
    low = max(low, (await consumer.beginning_offsets([partition]))[partition])
    if low >= high:
        return
    consumer.seek(partition, low)
    while await consumer.position(partition) < high:
        for batch in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
            for message in batch:
                if message.offset < high:
                    yield record_of(message)


def record_of(message: "ConsumerRecord[Any, Any]") -> Record:
    """Return the record of aiokafka's message."""
    value = message.value
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp,
        timestamp_type=_TYPES[message.timestamp_type],
        key=message.key,
        value=value,
        headers=message.headers,
        unread=value.reason if isinstance(value, Unread) else None,
    )


async def _time_of(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> float:
    end = (await consumer.end_offsets([partition]))[partition]
    if offset >= end:
        return time.time()
    consumer.seek(partition, offset)
    while await consumer.position(partition) < end:
        for batch in (await consumer.getmany(timeout_ms=_POLL_MS, max_records=1)).values():
            return float(batch[0].timestamp / 1000)
    return time.time()  # the rest of the log was aborted
