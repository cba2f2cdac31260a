"""`Publisher.process`: something in, what became of it out."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from producer import InvalidRequest, NotOpen, ProducerSettings, Publisher, ResultTimeout
from schemas import Request, Result, Source
from tests.answering import CAPTION, answering_consumer, with_caption
from tests.conftest import Broker, Topics

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
        }
    )


async def test_a_path_or_a_uri_comes_back_with_its_result(
    settings: ProducerSettings, tmp_path: Path
) -> None:
    """A path becomes a URI; what was handed in is the outcome's item."""
    picture = tmp_path / "a b.png"
    picture.touch()
    async with answering_consumer(settings), Publisher(settings, results=True) as publisher:
        by_path = await publisher.process(str(picture), timeout_seconds=30)
        by_uri = await publisher.process("s3://b/k", timeout_seconds=30)

    assert (by_path.status, by_path.item) == ("ok", str(picture))
    assert by_path.result is not None
    assert by_path.result.image is not None
    assert by_path.result.caption is not None
    assert by_path.result.image.uri == picture.as_uri()
    assert by_path.result.caption.text == CAPTION
    assert by_uri.item == "s3://b/k"


async def test_what_cannot_be_processed_says_what_to_do(settings: ProducerSettings) -> None:
    """Before anything is published."""
    async with Publisher(settings, results=True) as publisher:
        with pytest.raises(InvalidRequest, match=r"no such file: gone\.jpg"):
            await publisher.process("gone.jpg")
        with pytest.raises(InvalidRequest, match="one of the two"):
            await publisher.process("s3://b/k", text="a red car")
        with pytest.raises(ResultTimeout, match="is a consumer running"):
            await publisher.process("s3://b/k", timeout_seconds=0.1)
    with pytest.raises(NotOpen, match="async with"):
        await publisher.publish(with_uri("s3://b/k"))
    async with Publisher(settings) as publisher:
        with pytest.raises(NotOpen, match="results=True"):
            await publisher.process("s3://b/k")


def with_uri(uri: str) -> Request:
    return Request.model_validate({"id": "a", "image": {"uri": uri}})


async def test_many_come_as_they_are_done_and_not_too_many_at_once(
    settings: ProducerSettings,
) -> None:
    """A slow one holds back no other; what cannot be published, or is late, is an outcome too."""
    taken = 0

    def items() -> Iterator[str]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield "gone.jpg" if number == 3 else f"s3://b/{number}"

    def answer(request: Request, source: Source) -> Result | None:
        return None if request.subject == "s3://b/0" else with_caption(request, source)

    async with answering_consumer(settings, answer), Publisher(settings, results=True) as publisher:
        outcomes = publisher.process_many(items(), at_once=8, timeout_seconds=20)
        first = await anext(outcomes)
        assert taken <= 16
        rest = [outcome async for outcome in outcomes]

    by_item = {outcome.item: outcome.status for outcome in [first, *rest]}
    assert len(by_item) == 100
    assert (by_item["gone.jpg"], by_item["s3://b/0"]) == ("unpublished", "timeout")
    assert [status for status in by_item.values()].count("ok") == 98


async def test_giving_up_leaves_nothing_running(settings: ProducerSettings) -> None:
    """Whoever stops in the middle is not kept."""
    before = asyncio.all_tasks()
    async with answering_consumer(settings), Publisher(settings, results=True) as publisher:
        items = (f"s3://b/{number}" for number in range(50))
        async with aclosing(publisher.process_many(items)) as outcomes:
            await anext(outcomes)

    assert asyncio.all_tasks() <= before
