"""BLIP's comings and goings, in bytes of the process as the kernel counts them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.checkpoints import SMALL, save_random_blip
from benchmarks.memory import Memory, is_mapped
from consumer.inference.engine import Engine
from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import load_clip
from consumer.inference.models.clip_text import ClipText
from consumer.inference.models.device import Device
from consumer.inference.residency import ResidencyPolicy
from consumer.outcome import Inference
from consumer.pixels import Pixels
from schemas import Task
from tests.models.noise import Noise

# 95 MB of weights, most of them words: large beside the noise of a test process, quick to run.
HEAVY = replace(SMALL, width=512, vocabulary=30_000)


@pytest.fixture(scope="module")
def heavy_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BLIP checkpoint whose weights cannot be overlooked."""
    folder = tmp_path_factory.mktemp("heavy-blip")
    save_random_blip(folder, HEAVY)
    return folder


@asynccontextmanager
async def serving(
    clip_folder: Path, blip_folder: Path, cpu: Device, idle_seconds: float | None
) -> AsyncIterator[Engine]:
    """Yield an engine with both real models that runs."""
    checkpoint = inspect(str(clip_folder), "main", "clip")
    clip, texts = load_clip(checkpoint, cpu), ClipText(checkpoint, cpu)
    blip = GreedyCaptioner(inspect(str(blip_folder), "main", "blip"), cpu, max_new_tokens=4)
    policy = ResidencyPolicy(idle_seconds=idle_seconds, host_is_device=True)
    sizes: dict[str, Any] = {"embed_batch": 8, "caption_batch": 4}
    async with Engine(
        clip, blip, texts, **sizes, residency=policy, text_residency=policy
    ) as engine:
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def embed(engine: Engine, images: Sequence[Pixels]) -> None:
    """Embed all the images, as embed-only traffic does."""
    await asyncio.gather(*(engine.infer({Task.EMBED: pixels}) for pixels in images))


async def caption(engine: Engine, images: Sequence[Pixels]) -> list[Inference]:
    """Caption all the images at once."""

    async def ask(pixels: Pixels) -> Inference:
        with engine.expect_caption():
            return await engine.infer({Task.CAPTION: pixels})

    return await asyncio.gather(*map(ask, images))


async def test_no_weight_of_blip_is_in_memory_after_start_up(
    clip_folder: Path, heavy_blip: Path, cpu: Device, noise: Noise
) -> None:
    """Embeddings alone, and BLIP's file is not even mapped."""
    async with serving(clip_folder, heavy_blip, cpu, None) as engine:
        await embed(engine, noise(32))

        assert not is_mapped(heavy_blip)


async def test_idle_blip_gives_its_memory_back_while_embeddings_go_on(
    clip_folder: Path, heavy_blip: Path, cpu: Device, noise: Noise
) -> None:
    """It comes with the captions, and leaves between embeddings; four times over."""
    weights = (heavy_blip / "model.safetensors").stat().st_size
    async with serving(clip_folder, heavy_blip, cpu, 0.2) as engine:
        # What earlier tests left in this process goes with the first offload, and is not BLIP's.
        await come_and_go(engine, heavy_blip, noise)
        before = Memory.now().resident
        for _ in range(3):
            await come_and_go(engine, heavy_blip, noise)
            assert Memory.now().resident - before < weights * 0.3


async def come_and_go(engine: Engine, heavy_blip: Path, noise: Noise) -> None:
    """Caption, which takes BLIP's weights, and embed until they are gone."""
    captions = await caption(engine, noise(12))
    assert len(captions) == 12
    assert is_mapped(heavy_blip)

    async with asyncio.timeout(10):
        while is_mapped(heavy_blip):
            await embed(engine, noise(4))
    await embed(engine, noise(4))  # answered after the step that unmaps is over
