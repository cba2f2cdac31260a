"""What a partition's log holds before a position: who was there already, for the replay window.

Read from the log itself, so that a restart or a move of the partition needs no other store.
"""

import time
from collections.abc import AsyncIterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas import Record, TimestampType

MAX_RECORDS: Final = 200_000  # a window of 20 minutes at 160 records a second; bounds the start
_POLL_MS: Final = 500
_TYPES: Final = tuple(TimestampType)  # by Kafka's number; to ask the enum takes a microsecond more


async def read_back(
    client: dict[str, Any], partition: TopicPartition, end_offset: int, window_seconds: float
) -> AsyncIterator[Record]:
    """Yield the last records before `end_offset`, oldest first.

    They reach back `window_seconds` from the time of the record at `end_offset` (from now, where
    there is none yet), and are `MAX_RECORDS` at most.
    """
    consumer = AIOKafkaConsumer(
        **client, group_id=None, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    async with consumer:
        consumer.assign([partition])
        until = await _time_of(consumer, partition, end_offset)
        since = int((until - window_seconds) * 1000)
        found = (await consumer.offsets_for_times({partition: max(0, since)}))[partition]
        start = max(found.offset if found else end_offset, end_offset - MAX_RECORDS)
        consumer.seek(partition, start)
        while await consumer.position(partition) < end_offset:
            for batch in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for message in batch:
                    if message.offset < end_offset:
                        yield record_of(message)


def record_of(message: "ConsumerRecord[Any, Any]") -> Record:
    """Return the record of aiokafka's message."""
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp,
        timestamp_type=_TYPES[message.timestamp_type],
        key=message.key,
        value=message.value,
        headers=message.headers,
    )


async def _time_of(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> float:
    end = (await consumer.end_offsets([partition]))[partition]
    if offset >= end:
        return time.time()
    consumer.seek(partition, offset)
    while await consumer.position(partition) < end:
        for batch in (await consumer.getmany(timeout_ms=_POLL_MS, max_records=1)).values():
            return float(batch[0].timestamp / 1000)
    return time.time()  # what is there was aborted
