"""`imagelane status` on real brokers: what it tells, and what it cannot tell."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from imagelane.exits import ExitCode
from imagelane.position import Position, Undone
from producer.gallery.run import running_gallery
from producer.gallery.settings import GallerySettings
from producer.settings import StatusSettings
from producer.status import DeadLetters, Fault, LastResult, Status
from producer.status_reader import read_status
from schemas.headers import DLQ_CODE
from tests.conftest import Broker, Topics
from tests.consumer_process import own_environment
from tests.signed_results import ok_result, signed

pytestmark = pytest.mark.integration


@pytest.fixture
def here(broker: Broker, topics: Topics, secret: str) -> dict[str, str]:
    """The environment of the command."""
    return {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "QUERIES_TOPIC": topics.queries,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "GROUP_ID": f"group.{topics.ingest}",
        "BROKER_TIMEOUT_SECONDS": "20",
    }


async def look(here: dict[str, str]) -> Status:
    return await read_status(StatusSettings.from_env(here), since=time.time() - 60)


def command(here: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "imagelane", "status", *arguments],
        cwd="/",
        env=own_environment(here),
        capture_output=True,
        text=True,
        timeout=60,
    )


@asynccontextmanager
async def member(
    here: dict[str, str], topics: Topics, name: str
) -> AsyncIterator[AIOKafkaConsumer]:
    """A static member of the group that has every partition of requests."""
    consumer = AIOKafkaConsumer(
        topics.ingest,
        topics.queries,
        bootstrap_servers=here["BOOTSTRAP_SERVERS"],
        group_id=here["GROUP_ID"],
        group_instance_id=name,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    async with consumer:
        async with asyncio.timeout(30):
            while len(consumer.assignment()) < 2:
                await consumer.getmany(timeout_ms=50)
        yield consumer


async def publish(here: dict[str, str], topic: str, count: int, *, in_transaction: bool) -> None:
    """Publish records; a transaction leaves a marker behind them."""
    own = {"transactional_id": f"test.{topic}"} if in_transaction else {}
    async with AIOKafkaProducer(bootstrap_servers=here["BOOTSTRAP_SERVERS"], **own) as producer:
        if in_transaction:
            await producer.begin_transaction()
        for number in range(count):
            await producer.send(topic, b"%d" % number)
        if in_transaction:
            await producer.commit_transaction()
        await producer.flush()


async def test_all_that_there_is(here: dict[str, str], topics: Topics) -> None:
    """Members, positions, what is open below what is done, the last result, dead letters."""
    await publish(here, topics.ingest, 10, in_transaction=True)  # and a marker, at 10
    async with AIOKafkaProducer(bootstrap_servers=here["BOOTSTRAP_SERVERS"]) as producer:
        good = signed(StatusSettings.from_env(here), ok_result("the-last"))
        await producer.send_and_wait(
            topics.results, good.value, key=good.key, headers=list(good.headers)
        )
        await producer.send_and_wait(topics.results, b"forged")
        for code in (b"stale", b"stale", b"not_found", b"\x1b[2Jmine"):
            await producer.send_and_wait(topics.dlq, b"v", headers=[(DLQ_CODE, code)])
    partition = TopicPartition(topics.ingest, 0)
    async with member(here, topics, "gpu-0") as consumer:
        # 2 and 5 are open, all others below 7 are done; 7, 8 and 9 are not taken.
        position = Position.of(Undone(open=(2, 5), done_to=7))
        await consumer.commit({partition: OffsetAndMetadata(position.offset, position.metadata)})
        status = await look(here)
        printed = await asyncio.to_thread(command, here, "--json")
        shown = await asyncio.to_thread(command, here)

    assert not status.faults
    assert not isinstance(status.group, Fault)
    [one] = status.group.members
    assert one.instance_id == "gpu-0"
    assert partition in one.partitions
    assert not isinstance(status.partitions, Fault)
    [ingest, queries] = status.partitions
    assert (ingest.member, ingest.position, ingest.end) == ("gpu-0", 2, 11)
    assert (ingest.backlog, ingest.open, ingest.is_exact) == (5, 2, True)
    assert (queries.position, queries.backlog, queries.member) == (None, 0, "gpu-0")
    assert isinstance(status.last_result, LastResult)
    assert (status.last_result.id, status.last_result.offset) == ("the-last", 0)
    assert isinstance(status.dead_letters, DeadLetters)
    assert status.dead_letters.by_code == {"stale": 2, "not_found": 1, "other": 1}

    assert (printed.returncode, printed.stderr) == (0, "")
    document = json.loads(printed.stdout)
    assert document["partitions"][0]["backlog"] == 5
    assert document["group"]["members"][0]["instance_id"] == "gpu-0"
    assert shown.returncode == 0
    assert "the-last" in shown.stdout
    assert "\x1b" not in shown.stdout


async def test_group_that_nobody_knows(here: dict[str, str], topics: Topics) -> None:
    """Its line says so, and the rest is told: everything waits."""
    await publish(here, topics.ingest, 3, in_transaction=False)

    done = await asyncio.to_thread(command, here, "--json")

    assert done.returncode == ExitCode.FAILED
    assert f"no group {here['GROUP_ID']} on {here['BOOTSTRAP_SERVERS']}" in done.stderr
    document = json.loads(done.stdout)
    assert "no group" in document["group"]["error"]["reason"]
    assert document["partitions"][0]["backlog"] == 3
    assert document["partitions"][0]["position"] is None
    assert document["last_result"] is None
    assert document["dead_letters"]["by_code"] == {}


async def test_missing_topics_are_not_empty_ones(here: dict[str, str]) -> None:
    """No queries topic is nothing; each other one that is missing is a line with its name."""
    missing = here | {
        "QUERIES_TOPIC": "no.queries",
        "RESULTS_TOPIC": "no.results",
        "DLQ_TOPIC": "no.dlq",
    }
    status = await look(missing)

    assert isinstance(status.partitions, tuple)
    for part, topic in ((status.last_result, "no.results"), (status.dead_letters, "no.dlq")):
        assert isinstance(part, Fault)
        assert part.code is ExitCode.TOPIC
        assert topic in part.reason


async def test_open_transaction_that_holds_records_back(
    here: dict[str, str], topics: Topics
) -> None:
    """They cannot be read, so they are no backlog; that they are there is told."""
    own = {"bootstrap_servers": here["BOOTSTRAP_SERVERS"], "transactional_id": topics.ingest}
    async with AIOKafkaProducer(**own) as producer:
        await producer.begin_transaction()
        for number in range(3):
            await producer.send_and_wait(topics.ingest, b"%d" % number)
        held = await look(here)
        await producer.abort_transaction()

    assert isinstance(held.partitions, tuple)
    assert (held.partitions[0].backlog, held.partitions[0].withheld) == (0, 3)


async def test_backlog_that_is_not_counted_one_by_one(here: dict[str, str], topics: Topics) -> None:
    """Above 100 offsets it is what they span, and says so; a tool's position has no metadata."""
    await publish(here, topics.ingest, 150, in_transaction=True)
    async with member(here, topics, "gpu-0") as consumer:
        await consumer.commit({TopicPartition(topics.ingest, 0): OffsetAndMetadata(10, "a tool")})
        status = await look({**here, "SECRET_API_KEY": ""})

    assert isinstance(status.partitions, tuple)
    ingest = status.partitions[0]
    assert (ingest.position, ingest.end, ingest.backlog) == (10, 151, 141)
    assert (ingest.is_exact, ingest.open) == (False, 0)


async def test_page_does_not_count_what_is_done_above_the_position(
    here: dict[str, str], topics: Topics
) -> None:
    """Kafka's lag would: 8 offsets here, of which 3 are done."""
    await publish(here, topics.ingest, 10, in_transaction=False)
    async with member(here, topics, "gpu-0") as consumer:
        position = Position.of(Undone(open=(2, 5), done_to=7))
        await consumer.commit(
            {TopicPartition(topics.ingest, 0): OffsetAndMetadata(2, position.metadata)}
        )
        settings = GallerySettings.from_env({**here, "GALLERY_PORT": "0"})
        async with running_gallery(settings) as gallery, asyncio.timeout(30):
            while gallery.feed.open is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
            assert gallery.feed.open == 5


def test_no_broker(secret: str) -> None:
    """One line, and the exit code of it."""
    done = command({"BOOTSTRAP_SERVERS": "localhost:1", "BROKER_TIMEOUT_SECONDS": "2"}, "--json")

    assert done.returncode == ExitCode.BROKER
    assert done.stdout == ""
    assert "localhost:1" in done.stderr
    assert "Traceback" not in done.stderr
