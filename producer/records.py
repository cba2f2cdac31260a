"""Raw records of a topic, to its present end or for ever."""

import time
from collections.abc import AsyncGenerator
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from imagelane.exits import ExitCode, FatalError
from producer.connection import answering, existing_partitions, poll, reader, to_record
from producer.settings import ProducerSettings
from schemas import Record

_POLL_SECONDS: Final = 0.5


async def batches_of(settings: ProducerSettings, topic: str) -> AsyncGenerator[list[Record], None]:
    """Yield the committed records of a topic from its beginning to its present end."""
    partitions = await existing_partitions(settings, (topic,))
    async with reader(settings) as consumer:
        consumer.assign(partitions)
        async with answering(settings, f"looking for the start of {topic}"):
            await consumer.seek_to_beginning(*partitions)
        async for records in polled(settings, consumer, topic, follow=False):
            yield records


async def record_at(
    settings: ProducerSettings, consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int
) -> Record | None:
    """Return the record at a place, or None without one.

    The consumer must be assigned the partition, and serve no other reader.
    """
    async with answering(settings, f"reading {partition.topic}[{partition.partition}]@{offset}"):
        first = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        if not first <= offset < end:
            return None
        consumer.seek(partition, offset)
        found = None
        while found is None and await consumer.position(partition) < end:
            taken = await consumer.getmany(partition, timeout_ms=500, max_records=1)
            found = next((record for records in taken.values() for record in records), None)
    return to_record(found) if found and found.offset == offset else None


async def polled(
    settings: ProducerSettings, consumer: AIOKafkaConsumer, topic: str, *, follow: bool
) -> AsyncGenerator[list[Record], None]:
    """Yield the records of each poll, maybe none: with `follow` for ever, else to the ends.

    A partition's end is the one at its assignment to us.

    Raises:
        FatalError: the brokers refuse, or without `follow` are silent for too long.
    """
    ends: dict[TopicPartition, int] = {}
    bound_seconds, silent_since = settings.broker_timeout_seconds, time.monotonic()
    poll_ms = int(min(_POLL_SECONDS, bound_seconds / 2) * 1000)
    while follow or not await _is_at_ends(settings, consumer, topic, ends):
        async with answering(settings, f"reading {topic}"):
            records = await poll(consumer, poll_ms)
        yield records
        if records or follow:
            silent_since = time.monotonic()
        # The client raises nothing for an absent broker: it retries for ever.
        elif time.monotonic() - silent_since > bound_seconds:
            raise FatalError(
                ExitCode.BROKER, f"reading {topic}: the brokers fell silent; try again"
            )


async def _is_at_ends(
    settings: ProducerSettings,
    consumer: AIOKafkaConsumer,
    topic: str,
    ends: dict[TopicPartition, int],
) -> bool:
    assigned = consumer.assignment()
    async with answering(settings, f"asking for the ends of {topic}"):
        if unknown := [partition for partition in assigned if partition not in ends]:
            ends.update(await consumer.end_offsets(unknown))
        return bool(assigned) and all(
            [await consumer.position(one) >= ends[one] for one in assigned]
        )
