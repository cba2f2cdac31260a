"""Slow pictures beside others: they wait for a lane of their own, and the others do not."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from consumer.errors import Failed
from consumer.images.decoding import pool
from consumer.images.decoding.channel import WorkerOptions
from consumer.images.decoding.lane import Lane
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.sealed import SealedImage
from consumer.pixels import Resize
from schemas import Code, Task
from tests import corpus, pictures
from tests.fakes import decoded
from tests.hostile_worker import MARK, allow_code
from tests.processes import child_workers, is_ready, niceness, replaced

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LIMITS = DecodeLimits(max_pixels=4_000_000)
TARGETS = {Task.EMBED: Resize(height=4, width=4, resample=3, crop=False)}
LIGHT = pictures.encoded(pictures.drawing(), "PNG")
ENDLESS = MARK + b"while True: pass"
# Endless in a process of the normal lane, over at once in one of the slow lane.
LONGER_THAN_ITS_SLICE = MARK + b"while '\"niceness\":10' not in sys.argv[1]: pass"


@pytest.fixture(scope="module")
def costly() -> bytes:
    """Make a small JPEG whose scans take over a second by its header, and some 0.2 s in truth."""
    picture = Image.new("L", (1984, 1984))
    data = pictures.encoded(picture, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 80 + b"\xff\xd9"


async def _mixed(decoder: Decoder) -> None:
    """Decode as many light pictures as it takes for slow ones to have somebody beside them."""
    await asyncio.gather(*(decoded(decoder, LIGHT, TARGETS) for _ in range(32)))


async def _slow_pid(normal: set[int]) -> int:
    async with asyncio.timeout(20):
        while not (pids := {pid for pid in child_workers() - normal if is_ready(pid)}):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    (pid,) = pids
    return pid


async def test_slow_picture_has_a_process_of_its_own_that_yields(
    costly: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts with the first that needs it, stays, and runs on what the others leave over."""
    monkeypatch.setattr(pool, "_SLOW_SECONDS", 0.1)
    async with Decoder(LIMITS, timeout_seconds=20, workers=2) as decoder:
        normal = child_workers()
        await _mixed(decoder)
        for _ in range(2):
            assert (await decoded(decoder, costly, TARGETS)).width == 1984
            (slow,) = child_workers() - normal
            assert niceness(slow) == min(19, 10 + niceness(os.getpid()))
        assert child_workers() > normal
    assert not child_workers()


async def test_others_go_on_while_slow_ones_wait_and_no_more_than_so_many_wait(
    costly: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One past the bound is decoder_crashed, and says so; a large sound one has its turn."""
    monkeypatch.setattr(pool, "_SLOW_SECONDS", 0.1)
    monkeypatch.setattr(pool, "_MAX_WAITING", 2)
    monkeypatch.setattr(pool, "is_costly_for_its_size", lambda _, size: size < 1_000_000)
    async with Decoder(LIMITS, timeout_seconds=20, workers=1) as decoder:
        normal = child_workers()
        await _mixed(decoder)
        await decoded(decoder, costly, TARGETS)
        slow = await _slow_pid(normal)
        os.kill(slow, signal.SIGSTOP)
        waiting = [asyncio.create_task(decoded(decoder, costly, TARGETS)) for _ in range(3)]
        await asyncio.sleep(0)
        assert (await decoded(decoder, LIGHT, TARGETS)).format == "PNG"
        with pytest.raises(Failed) as caught:
            await decoded(decoder, costly, TARGETS)
        assert caught.value.code is Code.DECODER_CRASHED
        assert "2 that do wait before it" in caught.value.message
        assert (await decoded(decoder, costly + bytes(1_000_000), TARGETS)).width == 1984
        assert not any(task.done() for task in waiting)
        os.kill(slow, signal.SIGCONT)
        assert [image.width for image in await asyncio.gather(*waiting)] == [1984] * 3


async def test_slow_pictures_alone_have_all_processes(costly: bytes) -> None:
    """There is nobody to protect, so they are decoded as others are."""
    async with Decoder(LIMITS, timeout_seconds=20, workers=2) as decoder:
        normal = child_workers()
        await asyncio.gather(*(decoded(decoder, costly, TARGETS) for _ in range(4)))
        assert child_workers() == normal


async def test_picture_that_outlasts_its_slice_goes_on_in_the_slow_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its header says. It costs a process once: its digest is known the next time."""
    allow_code(monkeypatch, tmp_path)
    async with Decoder(LIMITS, timeout_seconds=60, workers=1) as decoder:
        await _mixed(decoder)
        with pytest.raises(Failed) as caught:
            await decoded(decoder, LONGER_THAN_ITS_SLICE, TARGETS)
        assert caught.value.code is Code.CORRUPT_IMAGE  # so it came to its end
        assert replaced(decoder) == 1
        with pytest.raises(Failed):
            await decoded(decoder, LONGER_THAN_ITS_SLICE, TARGETS)
        assert replaced(decoder) == 1


async def test_picture_over_the_time_limit_is_refused_at_once_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its digest, for a while; it costs no process then, and nothing but itself is refused."""
    allow_code(monkeypatch, tmp_path)
    async with Decoder(LIMITS, timeout_seconds=1, workers=1) as decoder:
        with pytest.raises(Failed, match="not decoded within 1 seconds"):
            await decoded(decoder, ENDLESS, TARGETS)
        before = replaced(decoder)
        assert before > 0
        with pytest.raises(Failed, match="a while ago") as caught:
            await decoded(decoder, ENDLESS, TARGETS)
        assert caught.value.code is Code.DECODER_CRASHED
        assert replaced(decoder) == before
        assert (await decoded(decoder, LIGHT, TARGETS)).format == "PNG"


async def test_scans_above_the_limit_are_refused_before_they_are_decoded() -> None:
    """40,000 of them in 575 kB would take a minute at 4 megapixels."""
    async with Decoder(LIMITS, timeout_seconds=20, workers=1) as decoder:
        with pytest.raises(Failed, match="more than 100 scans") as caught:
            await decoded(decoder, corpus.endless_jpeg(), TARGETS)
    assert caught.value.code is Code.UNSUPPORTED_FORMAT


async def test_one_that_is_not_heavy_has_one_heavy_picture_before_it_at_most() -> None:
    """A stumbling machine makes any photo outlast its slice: it must not wait behind them all."""
    lane = Lane(WorkerOptions(limits=LIMITS), count=1, timeout_seconds=20)
    finished: list[str] = []

    async def decode(name: str) -> None:
        with SealedImage.of(LIGHT) as image:
            await lane.decode(image, TARGETS, 20, is_heavy=name.startswith("heavy"))
        finished.append(name)

    lane.start()
    try:
        await lane.ready()
        (pid,) = child_workers()
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.TaskGroup() as tasks:
            for name in ("heavy 1", "heavy 2", "heavy 3", "photo 1", "photo 2"):
                tasks.create_task(decode(name))
            await asyncio.sleep(0)
            assert lane.waiting == 4
            os.kill(pid, signal.SIGCONT)
    finally:
        await lane.close()
    assert finished == ["heavy 1", "heavy 2", "photo 1", "photo 2", "heavy 3"]
    assert (lane.waiting, lane.waiting_bytes) == (0, 0)
