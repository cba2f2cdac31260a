"""What the tests of the contract share: settings, and members of one group."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from consumer.broker.group import KafkaStream
from consumer.parts import group_options, make_beginnings, open_cluster
from consumer.runtime.readiness import Readiness
from consumer.settings import ConsumerSettings
from tests.conftest import Broker, Topics
from tests.contract.members import Join, Member, Recorder


@pytest.fixture
def settings(broker: Broker, topics: Topics, secret: str) -> ConsumerSettings:
    """Settings with timeouts short enough for a test."""
    return ConsumerSettings.from_env(
        {
            "BOOTSTRAP_SERVERS": broker.bootstrap,
            "SECRET_API_KEY": secret,
            "INGEST_TOPIC": topics.ingest,
            "QUERIES_TOPIC": topics.queries,
            "RESULTS_TOPIC": topics.results,
            "DLQ_TOPIC": topics.dlq,
            "GROUP_ID": f"group.{topics.ingest}",
            "SESSION_TIMEOUT_SECONDS": "6",
            "TRANSACTION_TIMEOUT_SECONDS": "5",
        }
    )


@pytest.fixture
async def join(settings: ConsumerSettings) -> AsyncIterator[Join]:
    """Start members of one group; all leave at the end."""
    async with AsyncExitStack() as stack:

        async def start(settings: ConsumerSettings = settings) -> Member:
            cluster = await stack.enter_async_context(open_cluster(settings))
            ingest, *outputs = await cluster.topics()
            read = [ingest, await cluster.queries()]
            beginnings = make_beginnings(settings, cluster, read, outputs[0])
            await beginnings.look_back()
            workers = Recorder()
            reads = dict.fromkeys((settings.ingest_topic, settings.queries_topic), 600)
            made = KafkaStream(
                group_options(settings), cluster, outputs, beginnings, reads, Readiness()
            )
            stream = await stack.enter_async_context(made)
            stream.join(workers)
            return Member(stream, workers, settings.ingest_topic)

        yield start
