"""What BLIP costs in memory, before its first caption, with it, and after it left.

`python -m benchmarks.memory` makes checkpoints of the real sizes with random weights (ViT-B/32
and BLIP base, 1.5 GB, kept in build/checkpoints), then starts a fresh process that serves them with
the consumer's own engine on the CPU: start-up and embeddings, then cycles of captions and of an
idle bound that passes while embeddings go on. Exit code 1 if BLIP is mapped after start-up, or if
memory after a cycle is not within 10 % of that before.
"""

import argparse
import asyncio
import contextlib
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from consumer.inference.engine import Engine
from consumer.inference.residency import ResidencyPolicy
from schemas import Task

ALLOWED_RATIO = 1.10
MIB = 2**20

Images = NDArray[np.uint8]  # shape (images, side, side, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of this process, in bytes: all of it, and the part that no file backs."""

    resident: int
    anonymous: int

    @classmethod
    def now(cls) -> "Memory":
        """Read it from the kernel."""
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(rest.split()[0]) * 1024 for name, rest in (x.split(":") for x in lines)}
        return cls(resident=sizes["Rss"], anonymous=sizes["Anonymous"])


def is_mapped(folder: Path) -> bool:
    """Tell whether this process has a weight file of `folder` in its address space."""
    return f"{folder.resolve()}/model" in Path("/proc/self/maps").read_text()


def main() -> int:
    """Make the checkpoints that are not there, and measure in a process of its own."""
    parser = argparse.ArgumentParser(description="memory before, with and after BLIP")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/checkpoints"))
    parser.add_argument("--cycles", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="torch's; 0: its own choice")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return asyncio.run(measure(arguments.checkpoints, arguments.cycles, arguments.threads))
    _make(arguments.checkpoints)
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


async def measure(checkpoints: Path, cycles: int, threads: int) -> int:
    """Print one line per moment, and the worst ratio; return the exit code."""
    from consumer.inference.models.captioner import GreedyCaptioner
    from consumer.inference.models.checkpoint import inspect
    from consumer.inference.models.clip import load_clip
    from consumer.inference.models.clip_text import ClipText
    from consumer.inference.models.device import choose_device

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    device = choose_device("cpu", threads=threads)
    checkpoint = inspect(str(checkpoints / "clip"), "main", "clip")
    clip, texts = load_clip(checkpoint, device), ClipText(checkpoint, device)
    folder = checkpoints / "blip"
    blip = GreedyCaptioner(inspect(str(folder), "main", "blip"), device, max_new_tokens=20)
    # Longer than a batch of embeddings takes, so that the clock and not the load decides.
    policy = ResidencyPolicy(idle_seconds=1, host_is_device=True)
    async with Engine(
        clip,
        blip,
        texts,
        embed_batch=32,
        caption_batch=4,
        residency=policy,
        text_residency=policy,
    ) as engine:
        serving = asyncio.create_task(engine.run())
        images = _images(clip.resize.height), _images(blip.resize.height)
        code = await _cycles(engine, images, folder, cycles)
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    return code


async def _cycles(engine: Engine, images: tuple[Images, Images], folder: Path, cycles: int) -> int:
    await _embed(engine, images[0], rounds=4)
    before = Memory.now()
    mapped_at_start = is_mapped(folder)
    print(f"{'':24}{'resident MiB':>14}{'anonymous MiB':>15}{'ratio':>8}  BLIP mapped")
    _row("after start-up", before, before, folder)
    worst = 0.0
    for cycle in range(1, cycles + 1):
        await _caption(engine, images[1])
        _row(f"cycle {cycle}: with BLIP", Memory.now(), before, folder)
        while is_mapped(folder):
            await _embed(engine, images[0], rounds=1)
        # The step that unmaps gives memory back after that; the next one comes when it is over.
        await _embed(engine, images[0], rounds=1)
        after = Memory.now()
        _row(f"cycle {cycle}: BLIP left", after, before, folder)
        worst = max(worst, after.resident / before.resident)
    print(f"worst ratio after/before: {worst:.3f} (allowed: {ALLOWED_RATIO:.2f})")
    return int(mapped_at_start or worst > ALLOWED_RATIO)


async def _embed(engine: Engine, images: Images, rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.gather(*(engine.infer({Task.EMBED: image}) for image in images))


async def _caption(engine: Engine, images: Images) -> None:
    with engine.expect_caption():
        for batch in (images[:1], images[:1], images[:4]):
            await asyncio.gather(*(engine.infer({Task.CAPTION: image}) for image in batch))


def _row(moment: str, memory: Memory, before: Memory, folder: Path) -> None:
    ratio = memory.resident / before.resident
    mapped = "yes" if is_mapped(folder) else "no"
    sizes = f"{memory.resident / MIB:14.0f}{memory.anonymous / MIB:15.0f}"
    print(f"{moment:24}{sizes}{ratio:8.3f}  {mapped}", flush=True)


def _images(side: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)


def _make(checkpoints: Path) -> None:
    from benchmarks.checkpoints import BLIP_BASE, VIT_B_32, save_random_blip, save_random_clip

    if not (checkpoints / "clip" / "preprocessor_config.json").exists():
        print("making a CLIP of the size of ViT-B/32", flush=True)
        save_random_clip(checkpoints / "clip", VIT_B_32)
    if not (checkpoints / "blip" / "processor_config.json").exists():
        print("making a BLIP of the size of base", flush=True)
        save_random_blip(checkpoints / "blip", BLIP_BASE)


if __name__ == "__main__":
    sys.exit(main())
