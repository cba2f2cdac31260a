"""The decoder's threads: off the loop, bounded in number and in time."""

import asyncio
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, ValuesView

import pytest
from PIL import Image

from consumer.decoding.image import DecodeLimits
from consumer.decoding.pool import Decoder
from consumer.pixels import Resize
from consumer.verdicts import Failed
from schemas import Code, Task

LIMITS = DecodeLimits()
TARGETS = {Task.EMBED: Resize(height=4, width=4, resample=3, crop=False)}


def _picture(width: int = 8, height: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


class Slow(Mapping[Task, Resize]):
    """Targets that keep the thread which reads them, until `end` is set; then they fail if told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.end = threading.Event()
        self.begun = threading.Event()
        self._error = error

    def __getitem__(self, task: Task) -> Resize:
        return TARGETS[task]

    def __iter__(self) -> Iterator[Task]:
        return iter(TARGETS)

    def __len__(self) -> int:
        return len(TARGETS)

    def values(self) -> ValuesView[Resize]:
        self.begun.set()
        self.end.wait(10)
        if self._error is not None:
            raise self._error
        return TARGETS.values()


async def _begun(slow: Slow) -> None:
    assert await asyncio.to_thread(slow.begun.wait, 10)


async def test_image_is_decoded_while_the_loop_goes_on() -> None:
    """The loop answers during a decode, and the result comes back to it."""
    slow = Slow()
    async with Decoder(LIMITS, timeout_seconds=10, workers=1) as decoder:
        decoding = asyncio.create_task(decoder.decode(_picture(8, 9), slow))
        await _begun(slow)
        assert not decoding.done()
        slow.end.set()
        image = await decoding
    assert (image.width, image.height) == (8, 9)
    assert image.pixels[Task.EMBED].shape == (4, 4, 3)


async def test_verdict_of_the_image_comes_through() -> None:
    """What the decoder says of the image is what the caller gets."""
    async with Decoder(LIMITS, timeout_seconds=10) as decoder:
        with pytest.raises(Failed) as caught:
            await decoder.decode(b"text", TARGETS)
    assert caught.value.code is Code.NOT_AN_IMAGE


async def test_overrun_fails_its_record_alone() -> None:
    """Over the time limit is decoder_crashed; the next one waits for the thread, unpunished."""
    slow = Slow()
    async with Decoder(LIMITS, timeout_seconds=0.2, workers=1) as decoder:
        overrun = asyncio.create_task(decoder.decode(_picture(), slow))
        await _begun(slow)
        waiting = asyncio.create_task(decoder.decode(_picture(), TARGETS))
        with pytest.raises(Failed) as caught:
            await overrun
        assert caught.value.code is Code.DECODER_CRASHED
        # Longer than the limit, which only counts once there is a thread.
        assert await asyncio.wait({waiting}, timeout=0.3) == (set(), {waiting})
        slow.end.set()
        assert (await waiting).format == "PNG"


async def test_no_more_than_the_workers_decode_at_once() -> None:
    """The third waits until one of two threads is free."""
    first, second, third = Slow(), Slow(), Slow()
    async with Decoder(LIMITS, timeout_seconds=10, workers=2) as decoder:
        tasks = [
            asyncio.create_task(decoder.decode(_picture(), slow)) for slow in (first, second, third)
        ]
        await _begun(first)
        await _begun(second)
        assert not third.begun.is_set()
        first.end.set()
        await _begun(third)
        second.end.set()
        third.end.set()
        assert len(await asyncio.gather(*tasks)) == 3


async def test_cancelled_record_keeps_its_thread_until_it_ends() -> None:
    """A thread cannot be killed, so its place is free only when it is."""
    slow, after = Slow(), Slow()
    after.end.set()
    async with Decoder(LIMITS, timeout_seconds=10, workers=1) as decoder:
        cancelled = asyncio.create_task(decoder.decode(_picture(), slow))
        await _begun(slow)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        waiting = asyncio.create_task(decoder.decode(_picture(), after))
        await asyncio.sleep(0)
        assert not after.begun.is_set()
        slow.end.set()
        assert (await waiting).format == "PNG"


async def test_unknown_error_costs_that_record_alone() -> None:
    """A bug that an image finds is decoder_crashed, and names the kind of error only."""
    slow = Slow(RuntimeError("secret"))
    slow.end.set()
    async with Decoder(LIMITS, timeout_seconds=10, workers=1) as decoder:
        with pytest.raises(Failed) as caught:
            await decoder.decode(_picture(), slow)
        assert (await decoder.decode(_picture(), TARGETS)).format == "PNG"
    assert caught.value.code is Code.DECODER_CRASHED
    assert "RuntimeError" in caught.value.message
    assert "secret" not in caught.value.message


async def test_warnings_about_images_are_not_shown() -> None:
    """A header that makes Pillow warn of a bomb writes nothing to our standard error."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"")
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (head, idat)
    )
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        async with Decoder(LIMITS, timeout_seconds=10) as decoder:
            with pytest.raises(Failed) as caught:
                await decoder.decode(bomb, TARGETS)
    assert caught.value.code is Code.TOO_MANY_PIXELS
    assert shown == []
