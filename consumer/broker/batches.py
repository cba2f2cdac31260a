"""Outputs on their way to their topics, in whole batches."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from schemas import OutgoingRecord

_PARTITIONER: Final = DefaultPartitioner()  # Kafka's own: murmur2 of the key


async def send_batches(producer: AIOKafkaProducer, outputs: Sequence[OutgoingRecord]) -> None:
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
