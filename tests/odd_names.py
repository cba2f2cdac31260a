"""Records whose header names are no text: Kafka allows them, and aiokafka's reader does not."""

from collections.abc import Iterable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy


class NoText(str):
    """A name that is encoded as no text ever is."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return b"\xff\xfe"


async def send_in_one_batch(
    bootstrap_servers: str | Sequence[str],
    topic: str,
    records: Iterable[tuple[bytes, str]],
    compression: str | None = None,
) -> None:
    """Write values, each with one header of the name beside it, to partition 0."""
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, compression_type=compression
    ) as producer:
        batch = producer.create_batch()
        # aiokafka's own builder in Python, since the faster one makes no such name.
        batch._builder = _DefaultRecordBatchBuilderPy(2, 1 if compression else 0, 0, -1, -1, 0, 999)
        for value, name in records:
            batch.append(timestamp=None, key=None, value=value, headers=[(name, b"v")])
        await (await producer.send_batch(batch, topic, partition=0))
