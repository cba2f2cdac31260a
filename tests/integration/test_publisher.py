"""The publisher against real brokers: what it promises, and how it ends when it cannot."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import astuple
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from imagelane.exits import ExitCode, FatalError
from producer import (
    Keyed,
    NotOpen,
    ProducerSettings,
    Published,
    Publisher,
    TooLarge,
    image_request,
)
from schemas import (
    Code,
    Failure,
    Headers,
    KeyRing,
    Request,
    Result,
    Signer,
    Source,
    TimingMs,
    Verifier,
    encode_request,
    encode_result,
)
from schemas.headers import DLQ_CODE, DLQ_MESSAGE, DLQ_OFFSET, DLQ_PARTITION, DLQ_STAGE, DLQ_TOPIC
from tests.conftest import Broker, Topics, create_topics
from tests.containers import ApacheKafka
from tests.odd_names import NoText, send_in_one_batch

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(broker: Broker, topics: Topics, secret: str) -> ProducerSettings:
    return ProducerSettings.from_env(environment(broker.bootstrap, topics, secret))


def environment(bootstrap: str, topics: Topics, secret: str) -> dict[str, str]:
    return {
        "BOOTSTRAP_SERVERS": bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "BROKER_TIMEOUT_SECONDS": "5",
    }


def images(count: int) -> Iterator[Request]:
    return (image_request(f"s3://bucket/{number}") for number in range(count))


async def values(bootstrap: str, topic: str, count: int) -> list[tuple[bytes, bytes, Headers]]:
    """Return key, value and headers of the first `count` records, in the order of the log."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(20):
            records = [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()
    return [(record.key, record.value, record.headers) for record in records]


@asynccontextmanager
async def consumer_side(settings: ProducerSettings) -> AsyncIterator[AIOKafkaProducer]:
    """What a consumer writes with."""
    producer = AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers))
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def answer(
    settings: ProducerSettings, published: Published, keys: KeyRing | None = None
) -> bytes:
    """Write an error result, signed with `keys` or the shared secret; return its bytes."""
    result = Result(
        id=published.id,
        status="error",
        error=Failure(code=Code.NOT_FOUND, message="no such key", attempts=1),
        timing_ms=TimingMs(total=1.0),
        source=Source(
            topic=published.topic, partition=published.partition, offset=published.offset
        ),
    )
    value, topic = encode_result(result), settings.results_topic
    signer = Signer(keys or settings.keys, topic)
    headers = signer.sign(id=result.id, timestamp=1, key=b"k", value=value)
    async with consumer_side(settings) as producer:
        await producer.send_and_wait(topic, value, key=b"k", headers=headers)
    return value


async def refuse(settings: ProducerSettings, published: Published, *, offset: int) -> None:
    """Write the dead letter that the consumer writes for the record at `offset`."""
    headers = [
        ("sig-id", published.id.encode()),
        (DLQ_TOPIC, published.topic.encode()),
        (DLQ_PARTITION, b"%d" % published.partition),
        (DLQ_OFFSET, b"%d" % offset),
        (DLQ_MESSAGE, b"signed too long ago"),
        (DLQ_CODE, b"stale"),
        (DLQ_STAGE, b"admit"),
    ]
    async with consumer_side(settings) as producer:
        await producer.send_and_wait(settings.dlq_topic, b"{}", headers=headers)


async def write_unreadable(settings: ProducerSettings, topic: str) -> None:
    """Write a readable record and, in one batch with it, one that the client cannot read."""
    records = [(b"{}", "plain"), (b"{}", NoText())]
    await send_in_one_batch(settings.bootstrap_servers, topic, records)


async def test_a_thousand_arrive_once_in_order_and_authentic(settings: ProducerSettings) -> None:
    """Each is acknowledged with its place in the log, and verifies there."""
    requests = list(images(1000))
    async with Publisher(settings) as publisher:
        published = [done async for done in publisher.publish_many(requests)]

    log = await values(settings.bootstrap_servers[0], settings.ingest_topic, 1000)
    verifier = Verifier(settings.keys, settings.ingest_topic)
    assert [done.id for done in published] == [request.id for request in requests]
    assert [done.offset for done in published] == list(range(1000))
    assert [value for _, value, _ in log] == [encode_request(request) for request in requests]
    assert [verifier.verify(headers, key, value).id for key, value, headers in log] == [
        request.id for request in requests
    ]


@pytest.mark.docker
async def test_the_broker_sees_one_idempotent_producer(kafka: ApacheKafka, secret: str) -> None:
    """A retry after a lost answer is not a second record: the sequence has no gap, no repeat.

    The client allows idempotence with acks=all only.
    """
    topics = Topics(ingest=f"idempotent.{uuid4().hex}", results="unused.r", dlq="unused.d")
    await create_topics(kafka.bootstrap, NewTopic(topics.ingest, 1, 1))
    here = environment(kafka.bootstrap, topics, secret)
    async with Publisher(ProducerSettings.from_env(here)) as publisher:
        published = [done async for done in publisher.publish_many(images(50))]

    arguments = ("describe-producers", "--topic", topics.ingest, "--partition", "0")
    printed = await asyncio.to_thread(kafka.tool, "kafka-transactions", *arguments)

    (producer,) = printed.splitlines()[1:]
    _, epoch, _, last_sequence, *_ = producer.split()
    assert (epoch, last_sequence, len(published)) == (b"0", b"49", 50)


async def test_the_key_is_the_id_unless_given(settings: ProducerSettings) -> None:
    """Records with the same key stay in order."""
    plain, keyed = images(2)
    async with Publisher(settings) as publisher:
        await publisher.publish(plain)
        await publisher.publish(Keyed(request=keyed, key="album-7"))

    log = await values(settings.bootstrap_servers[0], settings.ingest_topic, 2)
    assert [key for key, _, _ in log] == [plain.id.encode(), b"album-7"]


async def test_what_is_done_is_yielded_though_the_source_is_slow(
    settings: ProducerSettings,
) -> None:
    """A service that feeds from a queue gets its acknowledgements at once."""
    more = asyncio.Event()

    async def slow() -> AsyncIterator[Request]:
        first, second = images(2)
        yield first
        await more.wait()
        yield second

    async with Publisher(settings) as publisher, asyncio.timeout(10):
        published = publisher.publish_many(slow())
        assert (await anext(published)).offset == 0
        more.set()
        assert (await anext(published)).offset == 1
        assert [done async for done in published] == []


async def test_a_verified_result_ends_the_wait(settings: ProducerSettings) -> None:
    """A forged one before it does not."""
    forger = KeyRing(current_id="k1", secrets={"k1": b"x" * 32})
    async with Publisher(settings, results=True) as publisher:
        (request,) = images(1)
        published = await publisher.publish(request)
        await answer(settings, published, forger)
        value = await answer(settings, published)

        outcome = await publisher.result(published, timeout_seconds=20)

    assert (outcome.status, outcome.code, outcome.value) == ("error", "not_found", value)
    assert publisher.unverifiable_count == 1


async def test_a_dead_letter_of_its_place_ends_the_wait_as_refused(
    settings: ProducerSettings,
) -> None:
    """No result is ever sent for a refused record; one of another place is not ours."""
    async with Publisher(settings, results=True) as publisher:
        (request,) = images(1)
        published = await publisher.publish(request)
        await refuse(settings, published, offset=published.offset + 1)
        with pytest.raises(TimeoutError, match=published.id):
            await publisher.result(published, timeout_seconds=1)
        await refuse(settings, published, offset=published.offset)

        outcome = await publisher.result(published, timeout_seconds=20)

    assert (outcome.status, outcome.code) == ("refused", "stale")
    assert outcome.message == "signed too long ago"


async def test_results_from_before_are_not_read_again(settings: ProducerSettings) -> None:
    """The wait begins at the ends of the topics; their past may be long."""
    forger = KeyRing(current_id="k1", secrets={"k1": b"x" * 32})
    (request,) = images(1)
    old = Published(request=request, topic=settings.ingest_topic, partition=0, offset=0)
    await answer(settings, old, forger)
    async with Publisher(settings, results=True) as publisher:
        published = await publisher.publish(request)
        await answer(settings, published)

        await publisher.result(published, timeout_seconds=20)

    assert publisher.unverifiable_count == 0


async def test_results_must_be_asked_for_when_opening(settings: ProducerSettings) -> None:
    """Afterwards it would be too late: they may have passed."""
    async with Publisher(settings) as publisher:
        published = await publisher.publish(next(images(1)))
        with pytest.raises(NotOpen, match="results=True"):
            await publisher.result(published, timeout_seconds=1)


async def test_a_key_that_is_too_large_is_told_before_sending(settings: ProducerSettings) -> None:
    """It is the caller's fault and not the broker's, and what follows is not disturbed."""
    first, second = images(2)
    async with Publisher(settings) as publisher:
        with pytest.raises(TooLarge):
            await publisher.publish(Keyed(request=first, key="k" * 2_000_000))
        published = await publisher.publish(second)

    assert published.offset == 0


@pytest.mark.parametrize("missing", ["ingest", "results", "dlq"])
async def test_a_missing_topic_is_named_and_not_created(
    settings: ProducerSettings, missing: str
) -> None:
    """Though the broker would create it for the asking."""
    name = f"missing.{settings.ingest_topic}"
    without = settings.model_copy(update={f"{missing}_topic": name})

    for _ in range(2):
        with pytest.raises(FatalError, match=name) as halt:
            async with Publisher(without, results=True):
                pass
        assert halt.value.code is ExitCode.TOPIC


async def test_a_broker_that_does_not_answer_ends_within_the_bound(secret: str) -> None:
    """It takes the connection and says nothing: worse than one that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = ProducerSettings.model_validate(
            {
                "bootstrap_servers": f"127.0.0.1:{silent.getsockname()[1]}",
                "secret_api_key": secret,
                "broker_timeout_seconds": 1,
            }
        )
        async with asyncio.timeout(10):
            with pytest.raises(FatalError) as halt:
                async with Publisher(settings):
                    pass
    assert halt.value.code is ExitCode.BROKER


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.usefixtures("embedded_broker")  # builds it
async def test_a_broker_that_goes_away_ends_the_publishing_within_the_bound(
    secret: str, tmp_path: Path, how: signal.Signals
) -> None:
    """Dead or silent: the client would try for ever. Nothing of it is left running."""
    topics = Topics(ingest="ingest", results="results", dlq="dlq")
    with own_broker(tmp_path) as (bootstrap, process):
        await create_topics(bootstrap, *(NewTopic(name, 1, 1) for name in astuple(topics)))
        here = environment(bootstrap, topics, secret) | {"BROKER_TIMEOUT_SECONDS": "2"}
        before = asyncio.all_tasks()
        async with asyncio.timeout(30):
            async with Publisher(ProducerSettings.from_env(here), results=True) as publisher:
                process.send_signal(how)
                with pytest.raises(FatalError) as halt:
                    await publisher.publish(next(images(1)))
        assert halt.value.code is ExitCode.BROKER
        assert asyncio.all_tasks() <= before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.usefixtures("embedded_broker")  # builds it
async def test_closing_gives_up_what_a_lost_broker_has_not_acknowledged(
    secret: str, tmp_path: Path, how: signal.Signals
) -> None:
    """Long before it expires: whoever publishes was cancelled, and waits for no broker."""
    topics = Topics(ingest="ingest", results="results", dlq="dlq")
    with own_broker(tmp_path) as (bootstrap, process):
        await create_topics(bootstrap, *(NewTopic(name, 1, 1) for name in astuple(topics)))
        here = environment(bootstrap, topics, secret) | {"BROKER_TIMEOUT_SECONDS": "60"}
        before = asyncio.all_tasks()
        async with asyncio.timeout(20):
            async with Publisher(ProducerSettings.from_env(here)) as publisher:
                await publisher.publish(next(images(1)))  # it knows the topic now
                process.send_signal(how)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(publisher.publish(next(images(1))), 0.5)
        assert asyncio.all_tasks() <= before


@pytest.mark.usefixtures("embedded_broker")  # builds it
async def test_the_command_line_ends_with_69_when_the_broker_dies_under_it(
    secret: str, tmp_path: Path
) -> None:
    """With one line, though others were waiting for their results."""
    topics = Topics(ingest="ingest", results="results", dlq="dlq")
    with own_broker(tmp_path) as (bootstrap, broker_process):
        await create_topics(bootstrap, *(NewTopic(name, 1, 1) for name in astuple(topics)))
        here = environment(bootstrap, topics, secret) | {"BROKER_TIMEOUT_SECONDS": "2"}
        with publishing_from_a_pipe(here) as running:
            assert running.stdin is not None
            assert running.stderr is not None
            running.stdin.write(b"{bad\n")
            running.stdin.flush()
            first = await asyncio.to_thread(running.stderr.readline)
            broker_process.kill()
            running.stdin.write(b"s3://b/k\n")
            running.stdin.flush()
            rest = await asyncio.to_thread(running.stderr.read)

            assert first.startswith(b"line 1: ")
            assert rest.startswith(b"producer: publishing ")
            assert rest.count(b"\n") == 1
            assert running.wait(1) == 69


@contextmanager
def publishing_from_a_pipe(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "producer", "publish", "-", "--wait"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environment,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def own_broker(data: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start an embedded broker that a test may kill."""
    command = [str(ROOT / "build" / "broker"), "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def command(
    settings_environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "producer", *arguments],
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | settings_environment,
    )


def test_topics_twice_creates_then_finds(broker: Broker, secret: str, topics: Topics) -> None:
    """And what differs is said, and left as it is; a weakened ingest topic ends with 1."""
    fresh = Topics(ingest=f"n{topics.ingest}", results=f"n{topics.results}", dlq=f"n{topics.dlq}")
    here = environment(broker.bootstrap, fresh, "") | {"QUERIES_TOPIC": f"q{topics.ingest}"}

    first, second = command(here, "topics", "--partitions", "2"), command(here, "topics")
    more = command(here, "topics", "--partitions", "4")
    swapped = {**here, "INGEST_TOPIC": fresh.results, "RESULTS_TOPIC": fresh.ingest}
    weakened = command(swapped, "topics")

    assert [done.returncode for done in (first, second, more)] == [0, 0, 1]
    assert first.stdout.count(b": created") == 4
    assert second.stdout.count(b": exists") == 4
    assert b"partitions is 2, wanted 4" in more.stdout
    alter = f"--alter --topic {fresh.ingest} --partitions 4\n"
    assert (
        f"  kafka-topics.sh --bootstrap-server {broker.bootstrap} {alter}" in more.stdout.decode()
    )
    assert weakened.returncode == 1
    assert b"message.timestamp.type is CreateTime, wanted LogAppendTime" in weakened.stdout


async def test_publish_wait_prints_a_line_for_each_outcome(
    settings: ProducerSettings, broker: Broker, topics: Topics, secret: str, tmp_path: Path
) -> None:
    """Bad lines, timeouts: exit code 1, and the rest is not held up."""
    manifest = tmp_path / "list.jsonl"
    manifest.write_bytes(b'{"uri":"s3://b/a","id":"a"}\n{"nonsense"\n')

    done = await asyncio.to_thread(
        command,
        environment(broker.bootstrap, topics, secret),
        "publish",
        str(manifest),
        "--wait",
        "--timeout",
        "1",
    )

    assert done.returncode == 1
    assert done.stdout.split()[:2] == [b"a", b"timeout"]
    assert b"is a consumer running?" in done.stdout
    assert f"{manifest}:2: ".encode() in done.stderr
    assert b"published 1, done 0, failed 2" in done.stderr


async def test_results_shows_each_and_marks_the_forged(
    settings: ProducerSettings, broker: Broker, topics: Topics, secret: str
) -> None:
    """It ends at the end of the topic, with 1 if one was forged."""
    here = environment(broker.bootstrap, topics, secret)
    published = Published(request=next(images(1)), topic=topics.ingest, partition=0, offset=0)
    await answer(settings, published)
    good = await asyncio.to_thread(command, here, "results")
    await answer(settings, published, KeyRing(current_id="k1", secrets={"k1": b"x" * 32}))
    forged = await asyncio.to_thread(command, here, "results")

    assert (good.returncode, forged.returncode) == (0, 1)
    assert good.stdout.split()[:2] == [published.id.encode(), b"error"]
    place = f"{topics.results}[0]@1".encode()
    assert forged.stdout.splitlines()[1].split()[:2] == [place, b"unverifiable"]
    assert b"bad_signature" in forged.stdout.splitlines()[1]
    assert b"Is the secret that of the consumers? Ours has the fingerprint" in forged.stderr
    assert good.stderr == b""


@pytest.mark.parametrize(("arguments", "read"), [("results", "results"), ("redrive --all", "dlq")])
async def test_a_header_name_that_is_no_text_does_not_end_the_reading(
    settings: ProducerSettings, arguments: str, read: str, broker: Broker, topics: Topics
) -> None:
    """Anybody who can write to the topic could stop its readers there for ever."""
    topic = {"results": topics.results, "dlq": topics.dlq}[read]
    here = environment(broker.bootstrap, topics, "a" * 32)
    await write_unreadable(settings, topic)
    await write_unreadable(settings, topic)

    done = await asyncio.to_thread(command, here, *arguments.split())

    places = [line.split()[0].decode() for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert places == [f"{topic}[0]@{offset}" for offset in range(4)]


@pytest.fixture
def own_parser() -> Iterator[None]:
    """Begin with aiokafka's own parser, whatever a consumer has put there in this process."""
    present, fetcher.MemoryRecords = fetcher.MemoryRecords, MemoryRecords
    yield
    fetcher.MemoryRecords = present


@pytest.mark.usefixtures("own_parser")
async def test_a_header_name_that_is_no_text_does_not_end_the_waiting(
    settings: ProducerSettings,
) -> None:
    """The result behind it arrives."""
    async with Publisher(settings, results=True) as publisher:
        published = await publisher.publish(next(images(1)))
        await write_unreadable(settings, settings.results_topic)
        await answer(settings, published)

        outcome = await publisher.result(published, timeout_seconds=20)

    assert outcome.code == "not_found"
    assert publisher.unverifiable_count == 2
