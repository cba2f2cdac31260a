"""Consumers on the embedded broker with topics of their own, as a user runs them."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka.admin import NewTopic

from examples.processes import running_broker
from tests.conftest import Topics, create_topics
from tests.consumer_process import consumer_process, environment
from tests.request_client import Client

_SECRET: Final = "a secret of the benchmark alone, 32 bytes long"


@asynccontextmanager
async def served(
    folder: Path, *, consumers: int = 1, **changes: str
) -> AsyncIterator[tuple[Client, Topics]]:
    """Run all until the block ends, with as many partitions as consumers.

    `folder` holds pictures and logs, `changes` are settings.
    """
    topics = Topics(ingest="image.ingest", results="image.results", dlq="image.ingest.dlq")
    requests = {"message.timestamp.type": "LogAppendTime", "compression.type": "uncompressed"}
    async with running_broker(folder / "broker") as broker:
        await create_topics(
            broker.address,
            NewTopic(topics.ingest, consumers, 1, topic_configs=requests),
            NewTopic(topics.queries, consumers, 1, topic_configs=requests),
            NewTopic(topics.results, 1, 1),
            NewTopic(topics.dlq, 1, 1),
        )
        settings = environment(broker.address, topics, _SECRET, FILE_ROOTS=str(folder), **changes)
        with ExitStack() as running:
            for number in range(consumers):
                log = folder / f"log-{number}"
                running.enter_context(consumer_process(settings, log))
            async with Client(broker.address, topics, _SECRET) as client:
                yield client, topics
