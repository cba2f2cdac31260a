"""`imagelane index` killed at random moments: each result is written once, and none is missing."""

import asyncio
import os
import random
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from producer import ProducerSettings
from producer.database.schema import Tables
from schemas import OutgoingRecord
from tests.conftest import create_topics
from tests.containers import ApacheKafka
from tests.faults.scenario import SEED, scale
from tests.postgres import Postgres, postgres, rows
from tests.signed_results import SIGNED_AT, ok_result, signed

pytestmark = [pytest.mark.integration, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
PARTITIONS = 3
DIM = 512
EVERY = 10  # an id in so many has an older result behind its newer one
# Every write of a row is counted: a row that is written twice the same would not show.
AUDIT = """
CREATE TABLE written (partition int, "offset" bigint);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO written VALUES (NEW.result_partition, NEW.result_offset); RETURN NEW;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON imagelane_results
  FOR EACH ROW EXECUTE FUNCTION audit();
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


async def test_kills_lose_and_double_nothing(kafka: ApacheKafka, server: Postgres) -> None:
    """kill -9 of the indexer, again and again, while results wait."""
    kills, count = scale(4, 20), scale(4_000, 100_000)
    print(f"{count} results, {kills} kills, SEED={SEED}")  # noqa: T201  # to do it again
    chance = random.Random(SEED)
    topic, address = f"results.{uuid4().hex[:12]}", server.new_database()
    await create_topics(kafka.bootstrap, NewTopic(topic, PARTITIONS, 1))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SECRET_API_KEY": "a-secret-that-only-the-tests-know-0123456789",
        "RESULTS_TOPIC": topic,
        "DATABASE_URL": address,
    }
    written = await publish(ProducerSettings.from_env(environment), count)
    rows(address, Tables("imagelane_results").script() + AUDIT)

    for kill in range(kills):
        process = await index(environment)
        await until_done(address, written * (kill + 1) // (kills + 1), process)
        await asyncio.sleep(chance.expovariate(20))
        process.kill()
        await process.wait()
    assert await (await index(environment)).wait() == 0

    holding = {(id, SIGNED_AT + 1) for id in map(str, range(count))}
    found = "SELECT id, extract(epoch FROM signed_at)::bigint FROM imagelane_results"
    assert set(rows(address, found)) == holding
    assert rows(address, "SELECT count(*) FROM imagelane_results") == [(count,)]
    assert done(address) == written
    doubled = 'SELECT partition, "offset", count(*) FROM written GROUP BY 1, 2 HAVING count(*) > 1'
    assert rows(address, doubled) == []


async def publish(settings: ProducerSettings, count: int) -> int:
    """Write the results over the partitions, in order of their number; return how many records."""
    servers, records = list(settings.bootstrap_servers), 0
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=50) as producer:
        for first in range(0, count, 1000):
            some = [
                await producer.send(
                    record.topic,
                    record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=number % PARTITIONS,
                )
                for number in range(first, min(first + 1000, count))
                for record in records_of(settings, number)
            ]
            await asyncio.gather(*some)
            records += len(some)
    return records


def records_of(settings: ProducerSettings, number: int) -> Sequence[OutgoingRecord]:
    vector = [0.0] * DIM
    vector[number % DIM] = 1.0
    result = ok_result(str(number), vector)
    newer = signed(settings, result, SIGNED_AT + 1)
    return [newer] if number % EVERY else [newer, signed(settings, result)]


async def index(environment: Mapping[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "imagelane", "index"),
        env=environment,
        cwd="/",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )


async def until_done(address: str, records: int, process: Process) -> None:
    """Wait until so many records are behind the places."""
    async with asyncio.timeout(300):
        while done(address) < records:
            assert process.returncode is None, "it ended by itself"
            await asyncio.sleep(0.01)


def done(address: str) -> int:
    ((records,),) = rows(
        address, "SELECT coalesce(sum(next_offset), 0) FROM imagelane_results_places"
    )
    return int(records)
