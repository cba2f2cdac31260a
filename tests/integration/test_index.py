"""Results in PostgreSQL with pgvector: rows and place together, whatever dies meanwhile."""

import asyncio
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from psycopg.errors import UndefinedTable

from imagelane.exits import ExitCode
from producer import ProducerSettings
from producer.database.schema import Tables
from schemas import Request, Result, Source
from tests.answering import answering_consumer
from tests.postgres import Postgres, postgres, rows
from tests.signed_results import SIGNED_AT, error_result, ok_result, signed, write

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PLACE = "SELECT next_offset FROM imagelane_results_places"
BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'imagelane' AND datname = current_database()"
)
WAITING = f"{BACKENDS} AND wait_event_type = 'Lock'"
IDS = "SELECT id FROM imagelane_results ORDER BY id"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One server, with a database for each test."""
    with postgres() as running:
        yield running


@pytest.fixture
def address(server: Postgres) -> str:
    return server.new_database()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imagelane", *arguments]


def environment(here: dict[str, str], address: str) -> dict[str, str]:
    ours = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": address}
    return ours | here


async def run(
    here: dict[str, str], address: str, *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(
        subprocess.run,
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env=environment(here, address),
    )
    assert done.returncode == code, done.stderr
    return done


@asynccontextmanager
async def following(here: dict[str, str], address: str) -> AsyncIterator[Process]:
    """Index what comes, and be killed at the end of the body."""
    process = await asyncio.create_subprocess_exec(
        *command("index", "--follow"), env=environment(here, address), cwd="/", stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(address: str, query: str, number: int) -> None:
    """Wait until the query answers one row with this number."""
    async with asyncio.timeout(60):
        while one(address, query) != [(number,)]:  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.02)


def one(address: str, query: str) -> list[tuple[int]]:
    try:
        return rows(address, query)
    except UndefinedTable:
        return []


async def test_a_run_goes_on_where_the_last_one_stopped(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """Each result has a row once; the later signature holds, whichever came first."""
    old, new = signed(settings, error_result("b")), signed(settings, ok_result("b"), SIGNED_AT + 9)
    await write(settings, [signed(settings, ok_result("a")), new])
    first = await run(here, address, "index")
    await write(settings, [old, signed(settings, error_result("c"))])
    await run(here, address, "index")
    again = await run(here, address, "index")

    assert "indexed 2, 0 records behind" in first.stderr
    assert "indexed 0, 0 records behind" in again.stderr
    found = rows(address, "SELECT id, status, error_code, embedding FROM imagelane_results")
    assert sorted(found) == [
        ("a", "ok", None, "[0.6,0.8]"),
        ("b", "ok", None, "[0.6,0.8]"),
        ("c", "error", "not_found", None),
    ]
    assert rows(address, PLACE) == [(4,)]


@pytest.mark.parametrize("held", ["imagelane_results", "imagelane_results_places"])
async def test_a_kill_between_rows_and_place_leaves_neither(
    settings: ProducerSettings, here: dict[str, str], address: str, held: str
) -> None:
    """One of the tables is locked, and the run is killed while it waits for that."""
    rows(address, Tables("imagelane_results").script())
    await write(settings, [signed(settings, ok_result("a"))])
    with psycopg.connect(address) as locked:
        locked.execute(f"LOCK TABLE {held} IN SHARE MODE")
        async with following(here, address):
            await until(address, WAITING, 1)
    await until(address, BACKENDS, 0)

    assert (rows(address, IDS), rows(address, PLACE)) == ([], [])
    await run(here, address, "index")
    assert (rows(address, IDS), rows(address, PLACE)) == ([("a",)], [(1,)])


async def test_a_row_is_the_whole_result(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """Bytes that PostgreSQL's text does not take, metadata with them, a time beyond 9999."""
    odd = ok_result("odd", (1.0, 0.0, 0.0), caption="a\0b 猫").model_copy(update={"metadata": None})
    deep = {"n": 10**40, "nul": "\0", "deep": json.loads("[" * 400 + "]" * 400)}
    much = Result.model_validate({**ok_result("much").model_dump(), "metadata": deep})
    await write(settings, [signed(settings, odd, 999_999_999_999), signed(settings, much)])

    await run(here, address, "index")

    columns = "caption, metadata::text, round(extract(epoch FROM signed_at))"
    query = f"SELECT {columns} FROM imagelane_results"
    assert rows(address, f"{query} WHERE id = 'odd'") == [("a\ufffdb 猫", None, 999_999_999_999)]
    ((caption, metadata, _),) = rows(address, f"{query} WHERE id = 'much'")
    assert (caption, json.loads(metadata)) == ("a circle", deep)


async def test_an_embedding_that_holds_no_vector_has_none(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """The row is there without it, and the others are."""
    broken = ok_result("broken")
    assert broken.embedding
    short = broken.embedding.model_copy(update={"dim": 3})
    await write(
        settings,
        [
            signed(settings, broken.model_copy(update={"embedding": short})),
            signed(settings, ok_result("whole")),
        ],
    )

    await run(here, address, "index")

    found = rows(address, "SELECT id, embedding, embedding_model FROM imagelane_results ORDER BY 1")
    assert found == [("broken", None, None), ("whole", "[0.6,0.8]", "m")]


async def test_what_does_not_verify_is_not_written(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """It is counted, and the place is behind it."""
    strange = settings.model_validate(
        {"secret_api_key": "x" * 32, "results_topic": settings.results_topic}
    )
    await write(settings, [signed(strange, ok_result("forged")), signed(settings, ok_result("a"))])

    done = await run(here, address, "index", code=1)

    assert "1 results ignored" in done.stderr
    assert rows(address, IDS) == [("a",)]
    assert rows(address, PLACE) == [(2,)]


async def test_only_what_was_signed_since(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """And it does not come later either: the place is behind it."""
    await write(settings, [signed(settings, ok_result("old"), SIGNED_AT - 1)])
    await write(settings, [signed(settings, ok_result("new"))])

    await run(here, address, "index", "--since", str(SIGNED_AT))
    await run(here, address, "index")

    assert rows(address, IDS) == [("new",)]


async def test_a_second_run_writes_nothing(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """The place moved under it: it writes no row, and says what to do."""
    await write(settings, [signed(settings, ok_result("a"))])
    async with following(here, address) as process:
        await until(address, PLACE, 1)
        rows(address, "UPDATE imagelane_results_places SET next_offset = 0")
        await write(settings, [signed(settings, ok_result("b"))])
        _, lines = await process.communicate()

    assert process.returncode == ExitCode.FAILED
    assert b"another `index` moved its place" in lines
    assert rows(address, IDS) == [("a",)]


async def test_a_table_of_another_topic_is_left_alone(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """Another --table takes it."""
    await write(settings, [signed(settings, ok_result("a"))])
    await run(here, address, "index")
    rows(address, "UPDATE imagelane_results_places SET topic = 'another'")

    done = await run(here, address, "index", code=1)
    await run(here, address, "index", "--table", "public.others")

    assert "holds results of another; take another --table" in done.stderr
    assert rows(address, "SELECT id FROM others") == [("a",)]


async def test_a_topic_made_anew_is_not_taken_for_the_old_one(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """It is shorter than the place: nothing is skipped in silence."""
    await write(settings, [signed(settings, ok_result("a"))])
    await run(here, address, "index")
    rows(address, "UPDATE imagelane_results_places SET next_offset = 7")

    done = await run(here, address, "index", code=ExitCode.TOPIC)

    assert "ends at 1 and was read to 7" in done.stderr


async def test_what_was_deleted_unread_is_said(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """Retention was quicker than the indexer."""
    await write(settings, [signed(settings, ok_result("a"))])
    await run(here, address, "index")
    await write(settings, [signed(settings, ok_result(name)) for name in "bcd"])
    admin = AIOKafkaAdminClient(bootstrap_servers=list(settings.bootstrap_servers))
    await admin.start()
    try:
        place = TopicPartition(settings.results_topic, 0)
        await admin.delete_records({place: RecordsToDelete(before_offset=3)})
    finally:
        await admin.close()

    done = await run(here, address, "index")

    assert "2 records were deleted from the topic before they were read" in done.stderr
    assert rows(address, IDS) == [("a",), ("d",)]


async def test_a_database_that_goes_away_ends_it(
    settings: ProducerSettings, here: dict[str, str]
) -> None:
    """With its own exit code; the next run has lost and doubled nothing."""
    with postgres() as server:
        address = server.new_database()
        await write(settings, [signed(settings, ok_result("a"))])
        async with following(here, address) as process:
            await until(address, PLACE, 1)
            await asyncio.to_thread(server.stop)
            await write(settings, [signed(settings, ok_result("b"))])
            _, lines = await process.communicate()
        assert (process.returncode, lines.count(b"database: ")) == (ExitCode.DATABASE, 1)
        away = await run(here, address, "index", code=ExitCode.DATABASE)
        await asyncio.to_thread(server.start)
        await run(here, address, "index")

        assert away.stderr.startswith("imagelane: database: connecting: ")
        assert rows(address, IDS) == [("a",), ("b",)]


async def test_a_user_who_may_not_create_is_told_the_sql(
    server: Postgres, settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """And goes on once somebody who may has run it."""
    await write(settings, [signed(settings, ok_result("a"))])
    name = address.partition("@/")[2].partition("?")[0]
    rows(address, f"CREATE ROLE {name}_user LOGIN")
    poor = server.address(name, f"{name}_user")

    refused = await run(here, poor, "index", code=ExitCode.DATABASE)
    script = await run(here, poor, "index", "--sql")
    for statement in script.stdout.split(";\n"):
        if statement.strip():
            rows(address, statement)
    rows(address, f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}_user")
    await run(here, poor, "index")

    assert "permission denied" in refused.stderr
    assert script.stdout.splitlines()[0] in refused.stderr
    assert rows(address, IDS) == [("a",)]


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:pass-word-1@/db?nonsense=1", "host=x password='pass-word-1", "pass-word-1"],
)
async def test_an_address_that_is_none_is_not_shown(here: dict[str, str], address: str) -> None:
    """It may hold a password."""
    done = await run(here, address, "index", code=ExitCode.SETTINGS)

    assert "DATABASE_URL" in done.stderr
    assert "pass-word-1" not in done.stderr + done.stdout


async def test_a_database_of_another_encoding_is_refused(
    server: Postgres, here: dict[str, str]
) -> None:
    """Before a caption fails in it."""
    done = await run(here, server.new_database("LATIN1"), "index", code=ExitCode.DATABASE)

    assert "LATIN1" in done.stderr


async def test_words_find_pictures_of_their_model(
    settings: ProducerSettings, here: dict[str, str], address: str
) -> None:
    """The nearest first; vectors of another model and length stand beside them, and never match."""
    here = here | {"QUERIES_TOPIC": f"queries.{settings.ingest_topic}"}
    await write(
        settings,
        [
            signed(settings, ok_result("star", (0.0, 1.0), caption="a star")),
            signed(settings, ok_result("square", (1.0, 0.0), caption="a square")),
            signed(settings, ok_result("other", (1.0, 0.0, 0.0), model="other")),
            signed(settings, error_result("failed")),
        ],
    )
    await run(here, address, "index")
    texts = ProducerSettings.from_env(
        here | {"INGEST_TOPIC": here["QUERIES_TOPIC"], "QUERIES_TOPIC": "unused"}
    )

    async with answering_consumer(texts, vector_of_words):
        found = await run(here, address, "search", "a square thing", "--database")
        rows(address, "UPDATE imagelane_results SET embedding_model = 'gone' WHERE id <> 'other'")
        none = await run(here, address, "search", "a square thing", "--database", code=1)

    assert [line.split() for line in found.stdout.splitlines()] == [
        ["1.000", "square", "a", "square"],
        ["0.000", "star", "a", "star"],
    ]
    assert "gone at 1 (2), other at 1 (1), the consumer has m at 1" in none.stderr


def vector_of_words(request: Request, source: Source) -> Result:
    result = ok_result(request.id, (1.0, 0.0))
    return result.model_copy(update={"image": None, "caption": None, "source": source})
