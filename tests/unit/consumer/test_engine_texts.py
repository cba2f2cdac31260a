"""Texts in the engine, what goes first, models that make room, and the probe before the start."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Failed
from consumer.inference.errors import DeviceOutOfMemory, ModelUnavailable
from consumer.inference.ports import Tokens
from consumer.inference.residency import ResidencyPolicy
from consumer.pixels import Pixels
from imagelane.exits import ExitCode
from schemas import Code, Task
from tests.engine_fakes import (
    Clock,
    Device,
    FakeCaptioner,
    FakeEmbedder,
    FakeTextEmbedder,
    TimedEmbedder,
    caption,
    embed,
    engine_of,
    image,
    running,
    until,
)


async def test_each_text_gets_its_own_vector(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Texts that wait together go together, each to its own answer; BLIP is not asked."""
    texts = FakeTextEmbedder(embedder.device)
    async with running(embedder, captioner, texts=texts) as engine:
        answers = await asyncio.gather(*(engine.infer_text("x" * n) for n in range(1, 20)))

    assert [answer.vector.tolist() for answer in answers] == [[n, -1] for n in range(1, 20)]
    assert {(answer.caption, answer.caption_ms) for answer in answers} == {(None, None)}
    assert sum(texts.batches) == 19
    assert max(texts.batches) <= 8
    assert (texts.loads, captioner.loads) == (1, 0)


async def test_text_is_tokenised_off_the_event_loop(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """4,096 characters take milliseconds, which the loop has for nobody."""
    texts = FakeTextEmbedder(embedder.device)
    async with running(embedder, captioner, texts=texts) as engine:
        await engine.infer_text("a")

    assert threading.main_thread().name not in texts.tokenized_in


async def test_text_that_is_too_long_fails_and_loads_nothing(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """It never waits for the device, so a flood of them costs no memory there."""
    texts = FakeTextEmbedder(embedder.device)
    async with running(embedder, captioner, texts=texts) as engine:
        with pytest.raises(Failed) as failure:
            await engine.infer_text("x" * 21)

    assert failure.value.code is Code.TEXT_TOO_LONG
    assert texts.loads == 0


async def test_text_tower_leaves_by_its_own_clock(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """As BLIP does: neither pictures nor captions keep it, and the next text brings it back."""
    clock, texts = Clock(), FakeTextEmbedder(embedder.device)
    async with running(
        embedder,
        captioner,
        texts=texts,
        residency=ResidencyPolicy(idle_seconds=None),
        text_residency=ResidencyPolicy(idle_seconds=60, host_seconds=600),
        clock=clock,
    ) as engine:
        await engine.infer_text("a")
        await caption(engine, 1)
        assert (texts.place, captioner.place) == ("device", "device")

        clock.now = 60
        await embed(engine, 2)
        await until(lambda: texts.place == "host")
        await embed(engine, 2)  # answered after the move is on record
        clock.now = 660
        await embed(engine, 2)
        await until(lambda: texts.place == "disk")
        assert captioner.place == "device"

        await engine.infer_text("a")
    assert texts.loads == 2


async def test_failed_load_of_the_text_tower_fails_texts_only(
    embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """They say which model it is; pictures and captions go on."""
    fault = ModelUnavailable("clip/model.safetensors is cut short")
    texts = FakeTextEmbedder(embedder.device, faults=[fault])
    async with running(embedder, captioner, texts=texts) as engine:
        with pytest.raises(Failed, match=r"CLIP text cannot be had: .* is cut short"):
            await engine.infer_text("a")

        assert (await embed(engine, 7)).vector is not None
        assert (await caption(engine, 8)).caption == "number 8"


async def test_urgent_text_goes_before_all_that_waits(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Pictures and captions that came before it have the device after it."""
    texts = FakeTextEmbedder(device)
    async with running(embedder, captioner, texts=texts, embed_batch=1) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            await engine.infer_text("a")
            device.steps.clear()
            embedder.may_embed.clear()
            asks = [
                asyncio.create_task(ask(engine, n)) for n in range(6) for ask in (embed, caption)
            ]
            await until(lambda: device.inside)
            asks.append(asyncio.create_task(engine.infer_text("a", urgent=True)))
            await until(lambda: len(engine._texts.queue))
            embedder.may_embed.set()
            await asyncio.gather(*asks)

    held, first = device.steps[:2]
    assert (held, first) == ("embed 1", "text 1")


async def test_steps_become_short_once_somebody_searches(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Pictures that take long go few at a time, so that the next search waits for few."""
    clock = Clock()
    slow = TimedEmbedder(device, clock, lambda images: images * 0.09)
    async with running(slow, captioner, embed_batch=8, clock=clock) as engine:
        await asyncio.gather(*(embed(engine, n) for n in range(16)))
        await engine.infer_text("a", urgent=True)
        await asyncio.gather(*(embed(engine, n) for n in range(4)))
        clock.now += 100
        await asyncio.gather(*(embed(engine, n) for n in range(8)))

    assert slow.batches[1:] == [8, 8, 2, 2, 8]


async def test_urgent_picture_goes_first_and_by_itself(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """It overtakes those that wait for the same model, and its batch is not filled with them."""
    async with running(embedder, captioner, embed_batch=4) as engine:
        asks = [asyncio.create_task(embed(engine, n)) for n in range(12)]
        asks.append(asyncio.create_task(engine.infer({Task.EMBED: image(99)}, urgent=True)))
        answers = await asyncio.gather(*asks)

    assert embedder.batches[1:] == [1, 4, 4, 4]
    assert [int(answer.vector[0]) for answer in answers] == [*range(12), 99]


async def test_idle_models_make_room_for_each_other(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """A text tower that finds no room takes BLIP's, since nobody wants BLIP."""

    class Tight(FakeTextEmbedder):
        def to_device(self) -> None:
            super().to_device()
            if captioner.place == "device":
                raise DeviceOutOfMemory("no room")

    texts = Tight(device)
    async with running(embedder, captioner, texts=texts) as engine:
        await caption(engine, 1)
        answer = await engine.infer_text("abc")

    assert answer.vector.tolist() == [3, -1]
    assert captioner.place == "host"


async def test_a_wanted_model_is_not_driven_out(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Two that do not fit together would chase each other for ever: the second one fails."""

    class Tight(FakeTextEmbedder):
        def to_device(self) -> None:
            super().to_device()
            if captioner.place == "device":
                raise DeviceOutOfMemory("no room")

    async with running(embedder, captioner, texts=Tight(device)) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            with pytest.raises(Failed, match="out of memory"):
                await engine.infer_text("abc")
            assert captioner.place == "device"


async def test_nothing_said_of_an_image_is_no_caption(
    embedder: FakeEmbedder, device: Device
) -> None:
    """An empty caption is never `ok`."""

    class Silent(FakeCaptioner):
        def caption(self, images: Sequence[Pixels]) -> list[str]:
            return [""] * len(super().caption(images))

    async with running(embedder, Silent(device)) as engine:
        with pytest.raises(Failed, match="said nothing") as failure:
            await caption(engine, 1)

    assert failure.value.code is Code.INFERENCE_FAILED


def probe(
    embedder: FakeEmbedder, captioner: FakeCaptioner, **changes: Any
) -> Coroutine[Any, Any, tuple[int, str | None]]:
    """Try every model once, before the engine runs."""

    async def tried() -> tuple[int, str | None]:
        async with engine_of(embedder, captioner, **changes) as engine:
            return await engine.probe({task: image(3) for task in Task}, "a red circle")

    return tried()


async def test_probe_tries_every_model_once_and_lets_them_go(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """Before a record comes, and no memory is held for it."""
    texts = FakeTextEmbedder(device)

    assert await probe(embedder, captioner, texts=texts) == (2, "number 3")

    assert device.steps[1:] == [
        *["embed 1", "text to device", "text 1", "text unload"],
        *["to device", "caption 1", "unload"],
    ]
    assert not device.overlapped


async def test_model_that_cannot_speak_is_refused_by_the_probe(
    device: Device, embedder: FakeEmbedder
) -> None:
    """By its name, with the code for checkpoints."""

    class Silent(FakeCaptioner):
        def caption(self, images: Sequence[Pixels]) -> list[str]:
            return [""] * len(images)

    with pytest.raises(ModelUnavailable, match="fake says nothing of a picture") as refused:
        await probe(embedder, Silent(device))

    assert refused.value.code is ExitCode.MODEL


async def test_model_that_fails_on_a_sound_input_is_refused_by_the_probe(
    device: Device, embedder: FakeEmbedder
) -> None:
    """An error there would spoil every record."""

    class Broken(FakeCaptioner):
        def caption(self, images: Sequence[Pixels]) -> None:
            raise ValueError("no such head")

    with pytest.raises(ModelUnavailable, match="fake: BLIP fails on a sound input: no such head"):
        await probe(embedder, Broken(device))


async def test_towers_of_two_spaces_are_refused_by_the_probe(
    device: Device, embedder: FakeEmbedder, captioner: FakeCaptioner
) -> None:
    """A text of three numbers finds no picture of two."""

    class Wide(FakeTextEmbedder):
        def embed_texts(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
            return np.ones((len(texts), 3), np.float32)

    with pytest.raises(ModelUnavailable, match="its texts have 3 numbers, its pictures 2"):
        await probe(embedder, captioner, texts=Wide(device))


async def test_captioner_without_room_does_not_stop_the_start(
    device: Device, embedder: FakeEmbedder
) -> None:
    """There may be room for it later; captions fail until then, and embeddings are served."""

    class TooLarge(FakeCaptioner):
        def to_device(self) -> None:
            super().to_device()
            raise DeviceOutOfMemory("no room")

    captioner = TooLarge(device)

    assert await probe(embedder, captioner) == (2, None)
    assert captioner.place == "disk"


async def test_embedder_that_takes_no_picture_is_no_fault_of_the_device(
    device: Device, captioner: FakeCaptioner
) -> None:
    """Its own processor makes a size that it does not take: a checkpoint to change."""

    class Narrow(FakeEmbedder):
        def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
            raise ValueError("Input image size (2*2) doesn't match model (4*4).")

    with pytest.raises(ModelUnavailable, match="fails on a sound picture: Input image size"):
        await probe(Narrow(device), captioner)
