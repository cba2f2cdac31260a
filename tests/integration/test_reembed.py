"""What another model embedded is published anew, and takes the place of what was there."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from producer import ProducerSettings
from schemas import Request, Result, Verifier, decode_request
from tests.postgres import Postgres, postgres, rows
from tests.signed_results import SIGNED_AT, error_result, ok_result, signed, write

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ODD = {"n": 10**30, "nul": "\0"}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def address(server: Postgres) -> str:
    return server.new_database()


@pytest.fixture(params=["topic", "database"])
def source(request: pytest.FixtureRequest) -> list[str]:
    """Where it learns from what there is."""
    return ["--database"] if request.param == "database" else []


async def run(
    here: dict[str, str], address: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "imagelane", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": address} | here,
    )
    assert done.returncode == 0, done.stderr
    return done


async def requests(settings: ProducerSettings) -> list[tuple[bytes | None, Request]]:
    """Return the key and the request of each record of the ingest topic; each verifies."""
    verifier = Verifier(settings.keys, settings.ingest_topic)
    partition = TopicPartition(settings.ingest_topic, 0)
    found = []
    async with AIOKafkaConsumer(bootstrap_servers=list(settings.bootstrap_servers)) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(timeout_ms=500)).get(partition, []):
                verifier.verify(record.headers, record.key, record.value)
                found.append((record.key, decode_request(record.value)))
    return found


async def write_results(settings: ProducerSettings) -> None:
    """Two results of an old model that hold, and others that are not to be made anew."""
    old = Result.model_validate({**ok_result("old", model="first").model_dump(), "metadata": ODD})
    mute = ok_result("mute", model="first").model_copy(update={"caption": None})
    await write(
        settings,
        [
            signed(settings, old, key=b"album 7"),
            signed(settings, mute),
            signed(settings, ok_result("new")),
            signed(settings, ok_result("done", model="first")),
            signed(settings, ok_result("done"), SIGNED_AT + 1),
            signed(settings, ok_result("gone", model="first")),
            signed(settings, error_result("gone"), SIGNED_AT + 1),
        ],
    )


async def test_what_another_model_made_goes_again(
    settings: ProducerSettings, here: dict[str, str], address: str, source: list[str]
) -> None:
    """Same id, key, image, tasks and metadata; nothing of an id whose later result is another."""
    await write_results(settings)
    await run(here, address, "index")

    done = await run(here, address, "reembed", "--model-not", "m", *source)

    found = {request.id: (key, request) for key, request in await requests(settings)}
    assert found.keys() == {"old", "mute"}
    key, request = found["old"]
    assert (key, request.image and request.image.uri) == (b"album 7", "s3://b/old")
    assert list(request.tasks) == ["embed", "caption"]
    assert request.metadata is not None
    assert json.loads(request.metadata.as_sent) == ODD
    assert list(found["mute"][1].tasks) == ["embed"]
    assert found["mute"][0] == b"mute"
    assert "published: 2 of first at 1" in done.stderr


async def test_a_dry_run_publishes_nothing(
    settings: ProducerSettings, here: dict[str, str], address: str, source: list[str]
) -> None:
    """It says what it would do, and at which limit."""
    await write_results(settings)
    await run(here, address, "index")

    every = await run(here, address, "reembed", "--model-not", "m@2", "--dry-run", *source)
    some = await run(
        here, address, "reembed", "--model-not", "m", "--dry-run", "--limit", "1", *source
    )

    assert len(every.stdout.splitlines()) == 4
    assert len(some.stdout.splitlines()) == 1
    assert "would be published: 2 of m at 1" in every.stderr
    assert await requests(settings) == []


async def test_what_the_consumer_would_drop_as_a_repeat_is_left(
    settings: ProducerSettings, here: dict[str, str], address: str, source: list[str]
) -> None:
    """It was made within the window in which the consumer knows the id."""
    await write_results(settings)
    await run(here, address, "index")

    done = await run(
        here,
        address,
        *("reembed", "--model-not", "m", "--replay-window-seconds", str(2**32)),
        *source,
    )

    assert "left for later: 2" in done.stderr
    assert await requests(settings) == []


async def test_the_new_result_takes_the_place_of_the_old_one(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """So that afterwards nothing is left to do."""
    await write_results(settings)
    await run(here, address, "index")
    await write(
        settings,
        [signed(settings, ok_result(id, (1.0, 0.0)), SIGNED_AT + 5) for id in ("old", "mute")],
    )
    await run(here, address, "index")

    done = await run(here, address, "reembed", "--model-not", "m", "--database")

    assert "nothing: there is no embedding of another model" in done.stderr
    models = "SELECT embedding_model, count(*) FROM imagelane_results GROUP BY 1 ORDER BY 1"
    assert rows(address, models) == [("m", 4), (None, 1)]
