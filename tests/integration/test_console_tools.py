"""What `sign` prints goes through Kafka's own console tools, and comes back verified."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.containers import ApacheKafka

pytestmark = [pytest.mark.integration, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
VALUES = (
    '{"version":1,"id":"a1","image":{"uri":"file:///data/a%20cat.jpg"},"tasks":["embed"]}\n'
    '{"version":1,"id":"a2","image":{"uri":"s3://b/k"},"metadata":{"größe":"1, 2: 3 = →"}}\n'
).encode()
EVERY_COLUMN = ("timestamp", "partition", "offset", "delivery", "epoch", "headers", "key")


@pytest.fixture
def topic(kafka: ApacheKafka) -> str:
    name = f"ingest.{uuid4().hex[:12]}"
    kafka.tool(
        "kafka-topics",
        *("--create", "--topic", name, "--config", "message.timestamp.type=LogAppendTime"),
    )
    return name


def producer(topic: str, secret: str, *arguments: str, stdin: bytes) -> tuple[int, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "producer", *arguments, "--topic", topic],
        input=stdin,
        capture_output=True,
        timeout=30,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SECRET_API_KEY": secret, "INGEST_TOPIC": topic},
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def produce(kafka: ApacheKafka, topic: str, lines: bytes, *, keyed: bool) -> None:
    properties = ["--reader-property", "parse.headers=true"]
    properties += ["--reader-property", "parse.key=true"] if keyed else []
    kafka.tool("kafka-console-producer", "--topic", topic, *properties, stdin=lines)


def consume(kafka: ApacheKafka, topic: str, count: int, *columns: str) -> bytes:
    properties = [
        word for column in columns for word in ("--formatter-property", f"print.{column}=true")
    ]
    bounds = ("--from-beginning", "--max-messages", str(count), "--timeout-ms", "20000")
    return kafka.tool("kafka-console-consumer", "--topic", topic, *bounds, *properties)


def test_signed_lines_survive_the_console_tools(
    kafka: ApacheKafka, topic: str, secret: str
) -> None:
    """With a key, with an odd one, with the empty one and with none."""
    for key in ("asset-42", "null", "ключ, a: b", ""):
        _, lines = producer(topic, secret, "sign", "--key", key, stdin=VALUES)
        produce(kafka, topic, lines, keyed=True)
    _, lines = producer(topic, secret, "sign", stdin=VALUES)
    produce(kafka, topic, lines, keyed=False)

    for columns in (EVERY_COLUMN, ("headers", "key")):
        printed = consume(kafka, topic, 10, *columns)

        assert producer(topic, secret, "verify", stdin=printed) == (0, b"ok a1\nok a2\n" * 5)


def test_what_the_console_producer_changed_is_refused(
    kafka: ApacheKafka, topic: str, secret: str
) -> None:
    """The key is signed: a line sent under another one does not verify."""
    _, lines = producer(topic, secret, "sign", "--key", "asset-42", stdin=VALUES)
    produce(kafka, topic, lines.replace(b"asset-42", b"asset-43"), keyed=True)
    kafka.tool("kafka-console-producer", "--topic", topic, stdin=VALUES)

    status, verdicts = producer(
        topic, secret, "verify", stdin=consume(kafka, topic, 4, "headers", "key")
    )

    assert status == 1
    assert [line.split()[0] for line in verdicts.splitlines()] == [
        *[b"bad_signature"] * 2,
        *[b"unsigned"] * 2,
    ]


def test_the_printed_append_time_is_what_freshness_is_judged_by(
    kafka: ApacheKafka, topic: str, secret: str
) -> None:
    """Signed an hour ago and appended now: the consumer refuses it, and so does `verify`."""
    _, lines = producer(
        topic, secret, "sign", "--key", "k", "--timestamp", "1764000000", stdin=VALUES
    )
    produce(kafka, topic, lines, keyed=True)
    printed = consume(kafka, topic, 2, "timestamp", "headers", "key")

    status, verdicts = producer(topic, secret, "verify", stdin=printed)

    assert (status, verdicts.count(b"stale ")) == (1, 2)
    assert producer(topic, secret, "verify", "--at", "1764000000", stdin=printed) == (
        0,
        b"ok a1\nok a2\n",
    )
