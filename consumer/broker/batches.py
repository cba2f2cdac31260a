"""Sends the outputs of a commit in pre-built batches."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from schemas import OutgoingRecord

_PARTITIONER: Final = DefaultPartitioner()  # Kafka's own: murmur2 of the key


async def send_batches(producer: AIOKafkaProducer, outputs: Sequence[OutgoingRecord]) -> None:
    """Send pre-built batches: `producer.send` for each record costs more than all other work."""
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
            _append(batches[target], out)  # a batch takes its first record, whatever its size
            sent.append(await producer.send_batch(full, out.topic, partition=target.partition))
    for target, batch in batches.items():
        sent.append(await producer.send_batch(batch, target.topic, partition=target.partition))
    await asyncio.gather(*sent)


def _append(batch: Any, out: OutgoingRecord) -> bool:
    """Append the record; return False if the batch is full."""
    headers = list(out.headers)
    return batch.append(timestamp=None, key=out.key, value=out.value, headers=headers) is not None
