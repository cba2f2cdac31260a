"""Dead letters that the consumer wrote go back to the ingest topic, and forgeries never do."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from consumer.outcome import ErrorOutcome, ModelIdentity, RefusedOutcome
from consumer.record.dead_letters import content_of
from consumer.record.results import OutcomeEncoder
from producer import ProducerSettings, image_request
from producer.records import batches_of
from schemas import (
    Code,
    Freshness,
    KeyRing,
    Record,
    Request,
    Signer,
    Stage,
    TimestampType,
    TimingMs,
    Verifier,
    admit,
    encode_request,
)
from tests.signed_results import ok_result, signed
from tests.signed_results import write as write_results

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TWO_DAYS = 172_800
NOT_REDRIVEN = (
    "forged  stale  not redriven: never signed again, it is not authentic: bad_s",
    "strange  stale  not redriven: never signed again, it is not authentic: bad_s",
    "ancient  stale  not redriven: signed 691",
    "large  too_large  not redriven: its value has 900",
    "recent  not_found  not redriven: too recent: again in 5",
    "old  not_found  redriven",
    "old  not_found  not redriven: another dead letter of this id",
    "done  stale  not redriven: its id has an outcome already",
)
STALE = Code.STALE


async def bury(
    settings: ProducerSettings,
    id: str,
    died: Code,
    *,
    age_seconds: float = TWO_DAYS,
    keys: KeyRing | None = None,
    padding: int = 0,
    is_written: bool = True,
) -> None:
    """Write a request that was signed so long ago, and the dead letter that a consumer makes of it.

    Without `is_written` the dead letter alone: it names a place where another record is.
    """
    then = time.time() - age_seconds
    request = image_request(f"s3://bucket/{id}", id=id)
    value, topic = encode_request(request) + b" " * padding, settings.ingest_topic
    signature = Signer(keys or settings.keys, topic).sign(
        id=id, timestamp=int(then), key=b"k", value=value
    )
    headers = [("traceparent", b"00-1"), *signature]
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        offset = 0
        if is_written:
            written = await producer.send_and_wait(topic, value, key=b"k", headers=headers)
            offset = written.offset
        record = Record(
            topic=topic,
            partition=0,
            offset=offset,
            timestamp_ms=int(then * 1000),
            timestamp_type=TimestampType.APPEND,
            key=b"k",
            value=value,
            headers=headers,
        )
        refused = RefusedOutcome(code=died, reason="as the test asked", content=content_of(record))
        outcome = refused if died.stage is Stage.ADMIT else failure(request, died)
        letter = encoder(settings).write(record, outcome, then)[-1]
        await producer.send_and_wait(
            letter.topic, letter.value, key=letter.key, headers=list(letter.headers)
        )


def encoder(settings: ProducerSettings) -> OutcomeEncoder:
    model = ModelIdentity(model="m", revision="r")
    return OutcomeEncoder(
        signer=Signer(settings.keys, settings.results_topic),
        results_topic=settings.results_topic,
        dlq_topic=settings.dlq_topic,
        group_id="g",
        embedder=model,
        captioner=model,
    )


def failure(request: Request, code: Code) -> ErrorOutcome:
    return ErrorOutcome(request=request, code=code, message="gone", attempts=1, timing=TimingMs())


async def read(settings: ProducerSettings, topic: str) -> list[Record]:
    async with aclosing(batches_of(settings, topic)) as batches:
        return [record async for records in batches for record in records]


async def redrive(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "producer", "redrive", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environment,
    )


async def test_stale_records_are_admitted_after_a_redrive(
    settings: ProducerSettings, here: dict[str, str]
) -> None:
    """By a consumer that knows only the new key; the old one is among the previous."""
    ids = [f"id{number}" for number in range(30)]
    for id in ids:
        await bury(settings, id, STALE)
    rotated = here | {
        "SECRET_API_KEY": "n" * 40,
        "SECRET_API_KEY_ID": "k2",
        "SECRET_API_KEYS_PREVIOUS": f"k1:{here['SECRET_API_KEY']}",
    }

    done = await redrive(rotated, "--code", "stale")

    arrived = (await read(settings, settings.ingest_topic))[len(ids) :]
    only_new = KeyRing(current_id="k2", secrets={"k2": b"n" * 40})
    verifier = Verifier(only_new, settings.ingest_topic)
    now = time.time()
    requests = [admit(r, verifier=verifier, freshness=Freshness(), now=now) for r in arrived]
    assert (done.returncode, done.stderr) == (0, "selected 30, redriven 30, not 0\n")
    assert [request.id for request in requests] == ids
    assert all(line.endswith("stale  redriven") for line in done.stdout.splitlines())
    assert {record.key for record in arrived} == {b"k"}
    assert [name for name, _ in arrived[0].headers] == ["traceparent", "sig-id", "sig-ts", "sig"]


async def test_a_dry_run_says_the_same_and_publishes_nothing(
    settings: ProducerSettings, here: dict[str, str]
) -> None:
    """One line each, and totals."""
    await bury(settings, "a1", STALE)
    await bury(settings, "b2", STALE)

    done = await redrive(here, "--all", "--dry-run")

    assert len(await read(settings, settings.ingest_topic)) == 2
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{settings.dlq_topic}[0]@0  a1  stale  would be redriven",
        f"{settings.dlq_topic}[0]@1  b2  stale  would be redriven",
    ]
    assert done.stderr == "selected 2, would be redriven 2, not 0\n"


async def test_what_cannot_be_redriven_is_named_and_the_rest_goes(
    settings: ProducerSettings, here: dict[str, str]
) -> None:
    """A forgery, one that a stranger put there, one that is done, a repeat …: exit code 1."""
    forger = KeyRing(current_id="k1", secrets={"k1": b"x" * 32})
    await bury(settings, "forged", STALE, keys=forger)
    await bury(settings, "strange", STALE, is_written=False)
    await bury(settings, "ancient", STALE, age_seconds=8 * 86_400)
    await bury(settings, "large", Code.TOO_LARGE, padding=900_000)
    await bury(settings, "recent", Code.NOT_FOUND, age_seconds=10)
    await bury(settings, "old", Code.NOT_FOUND, age_seconds=700)
    await bury(settings, "old", Code.NOT_FOUND, age_seconds=690)
    await bury(settings, "done", STALE)
    await write_results(settings, [signed(settings, ok_result("done"), int(time.time()))])

    done = await redrive(here, "--all")

    arrived = (await read(settings, settings.ingest_topic))[7:]
    said = [line.partition("]@")[2].partition("  ")[2] for line in done.stdout.splitlines()]
    assert [dict(record.headers)["sig-id"] for record in arrived] == [b"old"]
    assert (done.returncode, done.stderr) == (1, "selected 8, redriven 1, not 7\n")
    assert [line[: len(start)] for line, start in zip(said, NOT_REDRIVEN, strict=True)] == [
        *NOT_REDRIVEN
    ]


async def test_a_shorter_window_lets_the_recent_go(
    settings: ProducerSettings, here: dict[str, str]
) -> None:
    """Where the consumer's own is shorter, too."""
    await bury(settings, "a1", Code.NOT_FOUND, age_seconds=30)

    done = await redrive(here, "--code", "not_found", "--replay-window-seconds", "20")

    assert done.returncode == 0
    assert len(await read(settings, settings.ingest_topic)) == 2


async def test_only_what_is_selected_goes(settings: ProducerSettings, here: dict[str, str]) -> None:
    """By code, id and time; what is not selected is not mentioned."""
    await bury(settings, "a1", STALE)
    await bury(settings, "b2", Code.NOT_FOUND)
    await bury(settings, "c3", Code.CORRUPT_IMAGE)

    by_code = await redrive(here, "--code", "stale,not_found", "--code", "invalid", "--dry-run")
    by_id = await redrive(here, "--id", "b2", "--id", "c3", "--dry-run")
    by_time = await redrive(here, "--since", "2001-01-01", "--until", "2002-01-01", "--dry-run")

    ids = [[line.split()[1] for line in d.stdout.splitlines()] for d in (by_code, by_id, by_time)]
    assert ids == [["a1", "b2"], ["b2", "c3"], []]
    assert by_time.returncode == 0


async def test_a_missing_topic_of_dead_letters_ends_with_72(here: dict[str, str]) -> None:
    """In one line that names it."""
    done = await redrive(here | {"DLQ_TOPIC": "no.such.dlq"}, "--all")

    assert (done.returncode, done.stdout) == (72, "")
    assert done.stderr.count("\n") == 1
    assert "no.such.dlq" in done.stderr


def test_ctrl_c_ends_with_130_and_one_line(secret: str) -> None:
    """Although a broker that never answers is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "PATH": os.environ["PATH"],
            "BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}",
            "SECRET_API_KEY": secret,
        }
        with subprocess.Popen(
            [sys.executable, "-m", "producer", "redrive", "--all"],
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        ) as running:
            assert running.stderr is not None
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)  # it is waiting for the answer now
                running.send_signal(signal.SIGINT)

                assert running.wait(10) == 130
                assert running.stderr.read() == b"producer: interrupted\n"
