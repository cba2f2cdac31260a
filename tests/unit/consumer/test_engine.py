"""The engine with fakes for the models: who gets which answer, and what never happens at once."""

import asyncio
import gc
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Failed
from consumer.inference.errors import DeviceFailed, DeviceOutOfMemory, ModelUnavailable
from consumer.inference.residency import ResidencyPolicy
from consumer.outcome import Inference
from consumer.pixels import Pixels
from imagelane.exits import ExitCode
from schemas import Code, Task
from tests.engine_fakes import (
    BAD,
    POISON,
    Clock,
    Device,
    FakeCaptioner,
    FakeEmbedder,
    TimedEmbedder,
    caption,
    embed,
    engine_of,
    image,
    running,
    until,
)


async def test_each_image_gets_its_own_answer(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Vector and caption of one image, from whatever batches they went through."""
    async with running(embedder, captioner) as engine:
        both = [{Task.EMBED: image(n), Task.CAPTION: image(n)} for n in range(20)]

        answers = await asyncio.gather(*map(engine.infer, both))

    for number, answer in enumerate(answers):
        assert answer.vector.tolist() == [number, 1]
        assert answer.caption == f"number {number}"
        assert answer.embed_ms >= 0
        assert answer.caption_ms >= 0


async def test_what_was_not_asked_is_absent(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """An embedding alone has no caption, and never loads BLIP."""
    async with running(embedder, captioner) as engine:
        answer = await embed(engine, 3)

    assert (answer.caption, answer.caption_ms) == (None, None)
    assert captioner.loads == 0


async def test_warm_up_is_a_full_batch(embedder: FakeEmbedder, captioner: FakeCaptioner) -> None:
    """CLIP runs a batch of the largest size before the first record."""
    async with running(embedder, captioner, embed_batch=16):
        assert embedder.batches == [16]


@pytest.mark.parametrize(("capacity", "chosen"), [(1000, 32), (20, 16)])
async def test_batch_is_measured_where_nobody_names_one(
    device: Device, captioner: FakeCaptioner, capacity: int, chosen: int
) -> None:
    """A step that costs 1 ms and 1 ms an image gains 2.6 % beyond 32; what does not fit is out."""
    clock = Clock()
    embedder = TimedEmbedder(device, clock, lambda images: 0.001 * (1 + images), capacity)
    async with running(embedder, captioner, embed_batch=None, clock=clock) as engine:
        embedder.batches.clear()
        embedder.may_embed.clear()
        answers = [asyncio.create_task(embed(engine, n % 200)) for n in range(1 + 3 * chosen)]
        await asyncio.sleep(0)
        embedder.may_embed.set()
        await asyncio.gather(*answers)
    assert max(embedder.batches) == chosen


async def test_model_that_fails_while_it_is_measured_ends_the_start(
    device: Device, captioner: FakeCaptioner
) -> None:
    """With the words of the warm-up."""

    class Broken(FakeEmbedder):
        def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
            raise RuntimeError("shapes do not match")

    with pytest.raises(ModelUnavailable, match="shapes do not match"):
        async with running(Broken(device), captioner, embed_batch=None):
            pass


async def test_warm_up_finds_the_size_that_fits(device: Device, captioner: FakeCaptioner) -> None:
    """A batch too large for the device is halved at start-up, not in service."""
    embedder = FakeEmbedder(device, capacity=5)
    async with running(embedder, captioner, embed_batch=16) as engine:
        await asyncio.gather(*(embed(engine, n) for n in range(9)))

    assert embedder.batches[:3] == [16, 8, 4]
    assert max(embedder.batches[3:]) == 4


async def test_no_room_for_one_image_ends_the_start(
    device: Device, captioner: FakeCaptioner
) -> None:
    """A device that cannot hold a single image is reported as the device's fault."""
    with pytest.raises(DeviceFailed) as halt:
        async with running(FakeEmbedder(device, capacity=0), captioner):
            pass

    assert halt.value.code is ExitCode.DEVICE


async def test_two_batches_never_overlap(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Two hundred at once, both kinds, loads and offloads between: one thread, one step."""
    policy = ResidencyPolicy(idle_seconds=0, host_seconds=0)
    async with running(embedder, captioner, residency=policy) as engine:
        for _ in range(3):
            asks = [ask(engine, n) for n in range(100) for ask in (embed, caption)]
            await asyncio.gather(*asks)
            await until(lambda: captioner.place == "disk")

    assert not device.overlapped
    assert len(device.threads) == 1
    assert captioner.loads == 3


async def test_a_hundred_captions_load_blip_once(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """However many ask while it loads, there is one load, and all are answered."""
    captioner.may_load.clear()
    async with running(embedder, captioner) as engine:
        asks = [asyncio.create_task(caption(engine, n)) for n in range(100)]
        await until(lambda: captioner.loads == 1)
        captioner.may_load.set()
        answers = await asyncio.gather(*asks)

    assert captioner.loads == 1
    assert [answer.caption for answer in answers] == [f"number {n}" for n in range(100)]


async def test_load_begins_when_a_caption_is_expected(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """The load hides behind fetch and decode: it needs no image yet."""
    async with running(embedder, captioner) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")


async def test_clip_goes_on_while_blip_loads(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """A load that takes its time holds back no embedding."""
    captioner.may_load.clear()
    async with running(embedder, captioner) as engine:
        ask = asyncio.create_task(caption(engine, 1))
        await until(lambda: captioner.loads == 1)

        answers = [await embed(engine, n) for n in range(5)]

        assert len(answers) == 5
        assert not ask.done()
        captioner.may_load.set()
        await ask


async def test_batches_grow_while_the_device_is_busy(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """What is ready together goes together, up to the limit."""
    async with running(embedder, captioner) as engine:
        await asyncio.gather(*(embed(engine, n) for n in range(20)))

    assert embedder.batches[1:] == [8, 8, 4]


@pytest.mark.parametrize(("seconds", "ahead"), [(0.001, 2), (0.1, 1)])
async def test_next_batch_is_in_the_thread_before_it_is_needed(
    device: Device, captioner: FakeCaptioner, seconds: float, ahead: int
) -> None:
    """So the device has work while the loop is busy; a long batch would hold back who is urgent."""
    clock = Clock()
    embedder = TimedEmbedder(device, clock, lambda _: seconds)
    async with running(embedder, captioner, embed_batch=4, clock=clock) as engine:
        await asyncio.gather(*(embed(engine, n) for n in range(4)))
        embedder.batches.clear()
        embedder.may_embed.clear()
        answers = [asyncio.create_task(embed(engine, n)) for n in range(17)]
        await until(lambda: device.inside)
        await asyncio.sleep(0.01)
        embedder.may_embed.set()
        deadline = time.monotonic() + 10
        while len(embedder.batches) < ahead and time.monotonic() < deadline:
            time.sleep(0.001)  # noqa: ASYNC251 - the loop does nothing meanwhile
        time.sleep(0.05)  # noqa: ASYNC251
        assert len(embedder.batches) == ahead
        await asyncio.gather(*answers)


async def test_captions_and_embeddings_take_turns(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """With both waiting, each caption slice is followed by an embedding batch."""
    async with running(embedder, captioner, embed_batch=2, caption_batch=2) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            device.steps.clear()
            asks = [ask(engine, n) for n in range(6) for ask in (embed, caption)]
            await asyncio.gather(*asks)

    assert device.steps == ["embed 2", "caption 2"] * 3


async def test_idle_blip_leaves_while_embeddings_go_on(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Embed-only traffic neither keeps BLIP nor is kept by it."""
    clock = Clock()
    policy = ResidencyPolicy(idle_seconds=300, host_seconds=600)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        await caption(engine, 1)
        for clock.now in (100, 200, 299):
            await embed(engine, 2)
        assert captioner.place == "device"

        clock.now = 300
        await embed(engine, 2)
        await until(lambda: captioner.place == "host")
        await embed(engine, 2)  # answered after the move is on record
        clock.now = 900
        await embed(engine, 2)
        await until(lambda: captioner.place == "disk")


async def test_idle_clock_starts_with_the_last_caption(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Every caption batch puts the leaving off; embeddings do not."""
    clock = Clock()
    policy = ResidencyPolicy(idle_seconds=300, host_is_device=True)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        for clock.now in (0, 200):
            await caption(engine, 1)
        for clock.now in (300, 499):
            await embed(engine, 2)
            await embed(engine, 2)  # answered after whatever the first one made due
        assert captioner.place == "device"

        clock.now = 500
        await embed(engine, 2)
        await until(lambda: captioner.place == "disk")


async def test_idle_blip_leaves_without_any_traffic(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Nothing has to happen for the idle bound to be noticed."""
    policy = ResidencyPolicy(idle_seconds=0.01, host_is_device=True)
    async with running(embedder, captioner, residency=policy) as engine:
        await caption(engine, 1)
        await until(lambda: captioner.place == "disk")


async def test_blip_stays_while_a_caption_is_prepared(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """A caption whose image is still being fetched holds BLIP beyond the idle bound."""
    clock = Clock()
    policy = ResidencyPolicy(idle_seconds=300, host_is_device=True)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            clock.now = 1000
            await embed(engine, 1)
            await embed(engine, 2)
            assert captioner.place == "device"
        await until(lambda: captioner.place == "disk")


async def test_memory_is_split_down_to_the_image_that_does_not_fit(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """One bad image of eight fails, alone, and its neighbours do not notice."""
    async with running(embedder, captioner) as engine:
        asks = [embed(engine, n) for n in (1, 2, BAD, 4, 5, 6, 7, 8)]
        answers = await asyncio.gather(*asks, return_exceptions=True)

    failed = answers.pop(2)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message) == (Code.INFERENCE_FAILED, "out of memory")
    vectors = [answer.vector for answer in answers if isinstance(answer, Inference)]
    assert [int(vector[0]) for vector in vectors] == [1, 2, 4, 5, 6, 7, 8]
    assert embedder.batches[1:] == [8, 4, 2, 2, 1, 1, 4]


async def test_image_that_breaks_its_batch_fails_alone(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """An error that is not about memory is isolated alike, and says its first line."""
    async with running(embedder, captioner) as engine:
        asks = [caption(engine, n) for n in (1, BAD, 3)]
        answers = await asyncio.gather(*asks, return_exceptions=True)

    assert isinstance(answers[1], Failed)
    assert answers[1].message == "shapes do not match"
    captions = [answer.caption for answer in answers if isinstance(answer, Inference)]
    assert captions == ["number 1", "number 3"]


async def test_size_that_worked_is_remembered(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """After running out of memory the next batches have the size that worked."""
    async with running(embedder, captioner) as engine:
        embedder.capacity = 3
        await asyncio.gather(*(embed(engine, n) for n in range(8)))
        embedder.batches.clear()
        await asyncio.gather(*(embed(engine, n) for n in range(8)))

    assert embedder.batches == [2, 2, 2, 2]


async def test_blip_makes_room_for_clip(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Before a batch is split, BLIP leaves the device, and then the batch goes through whole."""
    embedder.capacity = 8
    async with running(embedder, captioner) as engine:
        await caption(engine, 1)
        device.steps.clear()

        answers = await asyncio.gather(*(embed(engine, n) for n in range(8)))

    assert len(answers) == 8
    assert device.steps == ["embed 8", "offload", "embed 8"]


async def test_blip_leaves_once_for_two_batches_that_do_not_fit(
    device: Device, captioner: FakeCaptioner
) -> None:
    """The second one tries again after the first has made room."""
    embedder = FakeEmbedder(device, capacity=4)
    embedder.captioner = captioner
    async with running(embedder, captioner, embed_batch=4) as engine:
        await embed(engine, 1)
        await caption(engine, 1)
        embedder.batches.clear()
        embedder.may_embed.clear()
        answers = [asyncio.create_task(embed(engine, n)) for n in range(17)]
        await until(lambda: device.inside)
        await asyncio.sleep(0.01)
        embedder.may_embed.set()
        await asyncio.gather(*answers)

    assert device.steps.count("offload") == 1
    assert max(embedder.batches[3:]) == 4


async def test_failed_batch_is_released_before_the_retry(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Nothing holds the failed batch's memory while its halves run, collector or not."""
    gc.disable()
    try:
        async with running(embedder, captioner) as engine:
            asks = [embed(engine, n) for n in (1, BAD)]
            await asyncio.gather(*asks, return_exceptions=True)
    finally:
        gc.enable()

    assert len(embedder.failed_memory) == 2
    assert not any(embedder.pinned)


async def test_failed_load_fails_those_captions_only(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """They say why; CLIP goes on; and later BLIP is loaded again and works."""
    captioner.faults = [ModelUnavailable("blip/model.safetensors is cut short")]
    clock = Clock()
    policy = ResidencyPolicy(first_retry_seconds=5)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        asks = [caption(engine, n) for n in range(3)]
        failed = await asyncio.gather(*asks, return_exceptions=True)
        for failure in failed:
            assert isinstance(failure, Failed)
            assert failure.code is Code.INFERENCE_FAILED
            assert "cut short" in failure.message
        assert (await embed(engine, 7)).vector is not None

        clock.now = 4.9
        with pytest.raises(Failed):
            await caption(engine, 8)
        assert captioner.loads == 1

        clock.now = 5
        answer = await caption(engine, 9)

    assert answer.caption == "number 9"
    assert captioner.loads == 2


async def test_no_room_for_blip_fails_those_captions_only(
    device: Device, embedder: FakeEmbedder
) -> None:
    """Running out of memory on the way to the device leaves nothing half-moved."""

    class TooLarge(FakeCaptioner):
        def to_device(self) -> None:
            super().to_device()
            raise DeviceOutOfMemory("no room")

    captioner = TooLarge(device)
    async with running(embedder, captioner) as engine:
        with pytest.raises(Failed, match="out of memory"):
            await caption(engine, 1)
        assert captioner.place == "disk"
        assert (await embed(engine, 2)).vector is not None


async def test_device_failure_ends_the_engine(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """An error of the device surfaces from `run`, and nobody waits for ever."""
    async with engine_of(embedder, captioner, embed_batch=1, caption_batch=1) as engine:
        asks = [asyncio.create_task(embed(engine, n)) for n in (POISON, 1, 2)]

        with pytest.raises(DeviceFailed, match="illegal memory access"):
            await engine.run()

        done, pending = await asyncio.wait(asks, timeout=1)
    assert not pending
    assert all(ask.cancelled() for ask in done)


async def test_unforeseen_error_of_a_load_ends_the_engine(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """A bug is not taken for a missing checkpoint."""
    captioner.faults = [ZeroDivisionError("a bug")]
    async with engine_of(embedder, captioner, embed_batch=1, caption_batch=1) as engine:
        ask = asyncio.create_task(caption(engine, 1))

        with pytest.raises(ZeroDivisionError):
            await engine.run()

        await asyncio.wait([ask], timeout=1)
    assert ask.cancelled()


async def test_cancelled_waiters_are_not_run(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """A record that went away while it waited takes no place in a batch."""
    captioner.may_load.clear()
    async with running(embedder, captioner) as engine, AsyncExitStack() as expected:
        expected.enter_context(engine.expect_caption())
        gone = [asyncio.create_task(caption(engine, n)) for n in range(3)]
        stays = asyncio.create_task(caption(engine, 9))
        await until(lambda: captioner.loads == 1)
        for ask in gone:
            ask.cancel()
        await asyncio.wait(gone)
        captioner.may_load.set()
        answer = await stays

    assert answer.caption == "number 9"
    assert captioner.batches == [1]
