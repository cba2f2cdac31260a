"""Fetch and decode: what can heal is tried again, what cannot is not, and bytes stay in budget."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import ByteBudget, Reservation
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.loop_clock import LoopClock
from consumer.images.prepare import FetchAndDecode
from consumer.images.retry import RetryPolicy
from consumer.images.sealed import SealedImage
from consumer.images.sources import Sources
from consumer.pixels import Resize
from consumer.record.process import Prepared
from schemas import Code, ImageReference, Request, Task

SMALL = Resize(height=8, width=8, resample=3, crop=False)


class ScriptedSource:
    """Raises what the script says, one entry a try, then gives a picture."""

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)
        self.tries = 0
        self.fetched = self.most_bytes = 0
        self.budget = ByteBudget(0)  # that of the preparation

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
        """Satisfy `consumer.images.sources.SealedSource`."""
        self.tries += 1
        if self.script:
            raise self.script.pop(0)
        picture = io.BytesIO()
        Image.new("RGB", (20, 10), "red").save(picture, "PNG")
        await reservation.resize(max_bytes)
        self.fetched += 1
        self.most_bytes = max(self.most_bytes, self.budget.held_bytes)
        return SealedImage.of(picture.getvalue())


def _preparation(
    source: ScriptedSource, decoder: Decoder, budget_bytes: int = 10_000, **changes: Any
) -> FetchAndDecode:
    sources = Sources(by_scheme={"test": source}, max_bytes=1000)
    fields: dict[str, Any] = {
        "sources": sources,
        "decoder": decoder,
        "resizes": {Task.EMBED: SMALL, Task.CAPTION: SMALL},
        "retry": RetryPolicy(base_seconds=0),
        "budget": ByteBudget(budget_bytes),
    }
    source.budget = fields["budget"]
    return FetchAndDecode(**(fields | changes))


async def _prepared(preparation: FetchAndDecode) -> Prepared:
    async with preparation.prepare(REQUEST) as prepared:
        return prepared


# One decoder for all of them, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    """Two decoding processes."""
    async with Decoder(DecodeLimits(), timeout_seconds=20, workers=2) as decoder:
        yield decoder


REQUEST = Request(id="a", image=ImageReference(uri="test:x"), tasks=(Task.EMBED,))
BUSY = Unavailable(Code.IMAGE_UNAVAILABLE, "busy")


async def test_only_the_pixels_asked_for_are_made(decoder: Decoder) -> None:
    """An embedding alone needs no second resize."""
    prepared = await _prepared(_preparation(ScriptedSource(), decoder))
    assert set(prepared.pixels) == {Task.EMBED}
    assert prepared.pixels[Task.EMBED].shape == (8, 8, 3)
    assert (prepared.image.width, prepared.image.height) == (20, 10)


async def test_what_can_heal_is_tried_again(decoder: Decoder) -> None:
    """Two failures that may pass, then the picture."""
    source = ScriptedSource(BUSY, BUSY)
    await _prepared(_preparation(source, decoder))
    assert source.tries == 3


async def test_retries_end_and_are_counted(decoder: Decoder) -> None:
    """A source that never answers fails the record, with the number of tries."""
    source = ScriptedSource(*[BUSY] * 9)
    with pytest.raises(Failed) as caught:
        await _prepared(_preparation(source, decoder))
    assert (caught.value.code, caught.value.attempts) == (Code.IMAGE_UNAVAILABLE, 4)


async def test_what_cannot_heal_is_not_tried_again(decoder: Decoder) -> None:
    """A missing image is missing at once."""
    source = ScriptedSource(BUSY, Failed(Code.NOT_FOUND, "gone"))
    with pytest.raises(Failed) as caught:
        await _prepared(_preparation(source, decoder))
    assert source.tries == caught.value.attempts == 2


async def test_failure_while_our_loop_stood_still_is_no_try(decoder: Decoder) -> None:
    """Every deadline is over at the end of a pause, and there is one try only."""
    time = [100.0]

    class Paused(ScriptedSource):
        async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
            time[0] += 60 if self.script else 0
            return await super().fetch(uri, max_bytes, reservation)

    source = Paused(BUSY)
    preparation = _preparation(source, decoder, retry=RetryPolicy(max_attempts=1))
    clock = LoopClock(lambda: time[0])
    await _prepared(replace(preparation, sources=replace(preparation.sources, clock=clock)))
    assert source.tries == 2


async def test_source_that_asks_for_too_much_patience_is_given_up(decoder: Decoder) -> None:
    """A Retry-After beyond the age bound is not waited for."""
    source = ScriptedSource(Unavailable(Code.IMAGE_UNAVAILABLE, "later", 3600))
    with pytest.raises(Failed) as caught:
        await _prepared(_preparation(source, decoder))
    assert caught.value.attempts == 1


async def test_what_fails_says_where_its_time_went(decoder: Decoder) -> None:
    """A fetch that fails has its own time, an image that fails in decoding both."""

    class NoImage(ScriptedSource):
        async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
            (await super().fetch(uri, max_bytes, reservation)).close()
            return SealedImage.of(b"no image")

    source = ScriptedSource(Failed(Code.NOT_FOUND, "gone"))
    with pytest.raises(Failed) as gone:
        await _prepared(_preparation(source, decoder))
    with pytest.raises(Failed) as broken:
        await _prepared(_preparation(NoImage(), decoder))
    assert gone.value.fetch_ms is not None
    assert gone.value.decode_ms is None
    assert broken.value.code is Code.NOT_AN_IMAGE
    assert None not in (broken.value.fetch_ms, broken.value.decode_ms)


async def test_fetches_stay_within_the_budget_of_bytes(decoder: Decoder) -> None:
    """No more images are in memory at once than the budget has room for, until they are pixels."""
    source = ScriptedSource()
    limit = 3000 + 3 * SMALL.byte_length
    preparation = _preparation(source, decoder, budget_bytes=limit)
    await asyncio.gather(*(_prepared(preparation) for _ in range(12)))
    # How many are in at once depends on who is quicker, source or decoder.
    assert limit // 3 <= source.most_bytes <= limit


async def test_pixels_stay_in_the_budget_until_they_are_used(decoder: Decoder) -> None:
    """What is ready for the models counts; no more is made than there is room for."""
    source = ScriptedSource()
    preparation = _preparation(source, decoder, budget_bytes=1000 + SMALL.byte_length)
    async with preparation.prepare(REQUEST):
        assert preparation.budget.held_bytes == SMALL.byte_length
        second = asyncio.create_task(_prepared(preparation))
        await asyncio.sleep(0.05)
        assert source.fetched == 1
    await second
    assert preparation.budget.held_bytes == 0


@pytest.mark.parametrize("fault", [BUSY, Failed(Code.NOT_FOUND, "gone")])
async def test_what_fails_holds_nothing(decoder: Decoder, fault: Failed) -> None:
    """Neither between two tries nor afterwards."""
    preparation = _preparation(ScriptedSource(fault), decoder)
    with suppress(Failed):
        await _prepared(preparation)
    assert preparation.budget.held_bytes == 0
