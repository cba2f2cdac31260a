"""The same records through two frameworks, as their documentation has it; for `transport --peer`.

Each reads a topic and writes one result of the same size for each record, and does nothing else:
it verifies, parses and signs nothing. Quix Streams does so exactly once, 500 records a transaction.
FastStream has no transactions over outputs and position: its batches of 500 are acknowledged when
they are published, at least once.

They are no requirement of anything here, and run in an environment of their own:

    python3 -m venv build/peers
    build/peers/bin/pip install 'faststream[kafka]>=0.7.8,<0.8' 'quixstreams>=3.28.1,<4'
"""

import asyncio
import sys
from typing import Any


def quix(bootstrap: str, ingest: str, results: str, group_id: str, size: int) -> None:
    """Run Quix Streams until it is killed."""
    from quixstreams import Application

    app = Application(
        broker_address=bootstrap,
        consumer_group=group_id,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_every=500,
        loglevel="WARNING",
    )
    value = b"x" * size
    read = app.topic(ingest, value_deserializer="bytes", key_deserializer="bytes")
    written = app.topic(results, value_serializer="bytes", key_serializer="bytes")
    app.dataframe(read).apply(lambda _: value).to_topic(written)
    app.run()


def faststream(bootstrap: str, ingest: str, results: str, group_id: str, size: int) -> None:
    """Run FastStream until it is killed."""
    from faststream import AckPolicy, FastStream
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(bootstrap, linger_ms=0, max_batch_size=1_000_000, logger=None)
    value = b"x" * size

    @broker.subscriber(  # type: ignore[untyped-decorator]
        ingest,
        group_id=group_id,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        batch=True,
        max_records=500,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def handle(records: list[Any]) -> None:
        await broker.publish_batch(*[value] * len(records), topic=results)

    asyncio.run(FastStream(broker).run(log_level=30))


if __name__ == "__main__":
    name, *places, result_bytes = sys.argv[1:]
    bootstrap, ingest, results, group_id = places
    run = {"quix": quix, "faststream": faststream}[name]
    run(bootstrap, ingest, results, group_id, int(result_bytes))
