"""The results topic read as an indexer does: verified, each once, from where it stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import NewTopic

from producer import NotOpen, ProducerSettings, ReadResult, ResultReader
from schemas import Code, OutgoingRecord
from tests.conftest import Broker, Topics, create_topics
from tests.signed_results import SIGNED_AT as T
from tests.signed_results import error_result, ok_result, signed, write

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(broker: Broker, topics: Topics, secret: str) -> ProducerSettings:
    return ProducerSettings.from_env(
        {
            "BOOTSTRAP_SERVERS": broker.bootstrap,
            "SECRET_API_KEY": secret,
            "INGEST_TOPIC": topics.ingest,
            "RESULTS_TOPIC": topics.results,
            "DLQ_TOPIC": topics.dlq,
            "BROKER_TIMEOUT_SECONDS": "10",
        }
    )


def result(
    settings: ProducerSettings, id: str, *, signed_at: int = T, code: str | None = Code.NOT_FOUND
) -> OutgoingRecord:
    """A signed result: an error with the code, or without one an `ok`."""
    return signed(settings, error_result(id, code) if code else ok_result(id), signed_at)


async def all_of(reader: ResultReader) -> list[ReadResult]:
    async with asyncio.timeout(30):
        return [one async for one in reader]


@asynccontextmanager
async def opened(settings: ProducerSettings, **how: object) -> AsyncIterator[ResultReader]:
    async with ResultReader(settings, follow=False, **how) as reader:  # type: ignore[arg-type]
        yield reader


async def test_each_result_comes_once_verified(settings: ProducerSettings) -> None:
    """A copy says nothing new, and a forgery is counted."""
    good = [result(settings, f"id{number}") for number in range(700)]
    forged = OutgoingRecord(
        topic=settings.results_topic, key=b"x", value=good[0].value, headers=good[0].headers
    )
    await write(settings, [*good, forged, *good[:1]])

    async with opened(settings) as reader:
        read = await all_of(reader)

    assert [(one.id, one.offset, one.signed_at) for one in read] == [
        (f"id{number}", number, T) for number in range(700)
    ]
    assert reader.unverifiable_count == 1
    assert read[5].value == good[5].value


async def test_an_old_result_that_is_copied_behind_a_newer_one_does_not_come(
    settings: ProducerSettings,
) -> None:
    """A reader that upserts would undo the newer one."""
    old, new = result(settings, "a", signed_at=T), result(settings, "a", signed_at=T + 9, code=None)
    await write(settings, [old, new, old])

    async with opened(settings) as reader:
        read = await all_of(reader)

    assert [(one.result.status, one.offset) for one in read] == [("error", 0), ("ok", 1)]


async def test_only_what_is_asked_for_comes(settings: ProducerSettings) -> None:
    """By status and by time of signing."""
    await write(
        settings,
        [
            result(settings, "old", signed_at=T - 1, code=None),
            result(settings, "failed", signed_at=T),
            result(settings, "done", signed_at=T, code=None),
        ],
    )

    async with opened(settings, statuses=("ok",), since=T) as reader:
        read = await all_of(reader)

    assert [one.id for one in read] == ["done"]


async def test_a_reader_goes_on_where_another_stopped(settings: ProducerSettings) -> None:
    """With the positions that it had, and nobody else's memory."""
    await write(settings, [result(settings, f"id{number}") for number in range(3)])
    async with opened(settings) as reader:
        before = await all_of(reader)
        positions = reader.positions
    await write(settings, [result(settings, "id3")])

    async with opened(settings, start=positions) as reader:
        after = await all_of(reader)

    assert (len(before), [one.id for one in after]) == (3, ["id3"])


async def test_a_following_reader_sees_what_comes(settings: ProducerSettings) -> None:
    """Until nobody asks for more."""
    async with ResultReader(settings) as reader, asyncio.timeout(30):
        await write(settings, [result(settings, "a")])
        results = aiter(reader)
        first = await anext(results)
        await write(settings, [result(settings, "b")])
        second = await anext(results)

    assert [first.id, second.id] == ["a", "b"]


async def test_a_group_gets_again_what_was_not_handled(settings: ProducerSettings) -> None:
    """The result whose handling failed is the first of the next run."""
    await write(settings, [result(settings, f"id{number}") for number in range(4)])

    seen: list[str] = []

    async def handle_until_it_fails() -> None:
        async with opened(settings, group_id=settings.results_topic) as reader:
            async for one in reader:
                seen.append(one.id)
                if one.id == "id2":
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await handle_until_it_fails()
    async with opened(settings, group_id=settings.results_topic) as reader:
        again = await all_of(reader)
    async with opened(settings, group_id=settings.results_topic) as reader:
        nothing = await all_of(reader)

    assert seen == ["id0", "id1", "id2"]
    assert [one.id for one in again] == ["id2", "id3"]
    assert nothing == []


async def test_a_group_that_commits_by_hand_commits_nothing_else(
    settings: ProducerSettings,
) -> None:
    """What was given when `commit` was called is handled."""
    await write(settings, [result(settings, f"id{number}") for number in range(4)])

    by_hand = {"group_id": settings.results_topic, "auto_commit": False}
    async with opened(settings, **by_hand) as reader:
        async for one in reader:
            if one.id == "id1":
                await reader.commit()
    async with opened(settings, **by_hand) as reader:
        again = await all_of(reader)

    assert [one.id for one in again] == ["id2", "id3"]


async def test_two_members_of_a_group_share_the_partitions(
    broker: Broker, settings: ProducerSettings
) -> None:
    """Each result comes to one of them, also of those that come while they change hands."""
    both = settings.model_copy(update={"results_topic": f"shared.{settings.results_topic}"})
    await create_topics(broker.bootstrap, NewTopic(both.results_topic, 2, 1))
    seen: list[str] = []
    done = asyncio.Event()

    async def member() -> None:
        async with ResultReader(both, group_id=both.results_topic) as reader:
            async for one in reader:
                seen.append(one.id)
                if set(seen) == {f"id{number}" for number in range(40)}:
                    done.set()

    first = asyncio.create_task(member())
    await write(both, [result(both, f"id{number}") for number in range(20)])
    second = asyncio.create_task(member())
    await write(both, [result(both, f"id{number}") for number in range(20, 40)], partition=1)
    try:
        async with asyncio.timeout(60):
            await done.wait()
    finally:
        for task in (first, second):
            task.cancel()
        await asyncio.wait({first, second})


async def test_a_reader_that_is_not_open_says_so(settings: ProducerSettings) -> None:
    """Before `async with`, and after its end."""
    reader = ResultReader(settings)
    with pytest.raises(NotOpen, match="async with"):
        await anext(aiter(reader))
    async with reader:
        pass
    with pytest.raises(NotOpen, match="async with"):
        await anext(aiter(reader))
