"""A topic that keeps the producers' compression: refused, put right, or read within a bound."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from imagelane.exits import ExitCode
from imagelane.kafka.unpacking import MAX_UNPACKED_BYTES
from producer.settings import TopicSettings
from producer.topics import TopicState, ensure_topics, topic_plans
from schemas import Code, ImageReference, KeyRing, Request, Signer, Task, encode_request, headers
from tests.conftest import Topics, create_topics
from tests.consumer_process import (
    PICTURES,
    consumer_process,
    environment,
    outcomes_by_id,
    read_all,
    run_consumer,
)
from tests.containers import ApacheKafka

pytestmark = [pytest.mark.integration, pytest.mark.docker]

GOOD = PICTURES / "large-red-circle.jpg"
CODECS = ("gzip", "snappy", "lz4", "zstd")


@pytest.fixture
async def packed(kafka: ApacheKafka) -> Topics:
    """Topics as Kafka makes them by default, but for a setting of somebody's own."""
    tag = uuid4().hex[:12]
    topics = Topics(ingest=f"packed.{tag}", results=f"results.{tag}", dlq=f"dlq.{tag}")
    own = {"retention.ms": "7200000"}
    names = (topics.ingest, topics.results, topics.dlq)
    await create_topics(
        kafka.bootstrap, *(NewTopic(name, 1, 1, topic_configs=own) for name in names)
    )
    return topics


async def _send(bootstrap: str, topic: str, secret: str, codec: str) -> None:
    signer = Signer(KeyRing(current_id="k1", secrets={"k1": secret.encode()}), topic)
    request = Request(id=codec, image=ImageReference(uri=GOOD.as_uri()), tasks=(Task.EMBED,))
    value = encode_request(request)
    signed = signer.sign(id=codec, timestamp=int(time.time()), key=None, value=value)
    bomb = b"\0" * (MAX_UNPACKED_BYTES + 2**20)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, max_request_size=2**30
    ) as producer:
        await producer.send_and_wait(topic, value, headers=signed)
        await producer.send_and_wait(topic, bomb)


async def test_topic_that_keeps_compression_is_refused_until_it_is_fixed(
    kafka: ApacheKafka, packed: Topics, secret: str
) -> None:
    """Exit code 72 by `check` and by the consumer; `topics --fix` sets it and keeps the rest."""
    settings = environment(kafka.bootstrap, packed, secret)
    for command in ((), ("check",)):
        done = await asyncio.to_thread(run_consumer, settings, *command)
        assert done.returncode == ExitCode.TOPIC
        assert "--fix" in done.stdout + done.stderr
    own = TopicSettings.from_env(settings)
    plans = topic_plans(own, partitions=None, replication=None)
    reports = {report.name: report for report in await ensure_topics(own, plans, fix=True)}
    assert reports[packed.ingest].state is TopicState.FIXED
    again = {report.name: report for report in await ensure_topics(own, plans)}
    assert again[packed.ingest].state is TopicState.EXISTS
    described = kafka.tool("kafka-configs", *("--describe", "--topic", packed.ingest)).decode()
    assert "retention.ms=7200000" in described
    done = await asyncio.to_thread(run_consumer, settings, "check")
    assert done.returncode == ExitCode.OK, done.stdout


async def test_every_codec_is_read_and_no_bomb_opens(
    kafka: ApacheKafka, packed: Topics, secret: str, tmp_path: Path
) -> None:
    """Allowed by name: good records of each codec are done, a bomb is one dead letter."""
    for codec in CODECS:
        await _send(kafka.bootstrap, packed.ingest, secret, codec)
    settings = environment(kafka.bootstrap, packed, secret, ALLOW_COMPRESSED="true")
    with consumer_process(settings, tmp_path / "log") as consumer:
        await asyncio.to_thread(consumer.wait_for, "record done", len(CODECS), outcome="ok")
        refused = {"outcome": "refused", "code": Code.TOO_LARGE}
        await asyncio.to_thread(consumer.wait_for, "record done", len(CODECS), **refused)
        status = Path(f"/proc/{consumer.process.pid}/status").read_text()  # noqa: ASYNC240
        assert await asyncio.to_thread(consumer.end) == ExitCode.OK
    assert int(status.partition("VmHWM:")[2].split()[0]) < 1_200_000  # KiB; torch is most of it
    results, _ = await outcomes_by_id(kafka.bootstrap, packed)
    assert sorted(results) == sorted(CODECS)
    letters = await read_all(kafka.bootstrap, packed.dlq)
    reasons = [dict(letter.headers)[headers.DLQ_MESSAGE].decode() for letter in letters]
    assert reasons == [f"its batch unpacks to more than {MAX_UNPACKED_BYTES} bytes"] * len(CODECS)
