"""What a card gives, and how much of it the engine gets: the tests of a device, then its rates.

`python -m benchmarks.gpu`: needs what the consumer needs, and pytest for the tests of `tests/gpu`.
Checkpoints of the real sizes have random weights, and the dtype that the device would choose.
`bare` is the forward pass alone, of pixels that are normalised on the device already, at the batch
that is best; `engine` is the consumer's engine, which gets pixels in host memory, one by one, and
gives vectors, at the batch that it measures itself. `whole` is a partition of the consumer without
a broker: signed records, photos of 640 x 480 in files, fetching and decoding processes on all
cores, the same engine, signed results. Captions are held against transformers' own `generate`.

It runs on a CPU as well, where `--small` tries the script itself.
"""

import argparse
import asyncio
import importlib.util
import json
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog
import torch

from benchmarks import caption
from benchmarks.carriage import carry, fetch_and_decode, records_of, settings_for
from benchmarks.checkpoints import (
    BLIP_BASE,
    SMALL,
    VIT_B_32,
    VIT_L_14,
    Size,
    noise,
    save_random_blip,
    save_random_clip,
)
from benchmarks.instant import InstantModel, jpeg, real_decoder
from consumer.image_sources import open_sources
from consumer.images.decoding.pool import usable_cores
from consumer.inference.engine import Engine
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import Clip, load_clip
from consumer.inference.models.device import Device, choose_device
from consumer.inference.residency import ResidencyPolicy
from consumer.pixels import Pixels, Resize
from schemas import Task

GOAL: Final = 0.9  # engine over bare, ViT-L/14
BATCHES: Final = (8, 32, 128, 256)
SIZES: Final = {"ViT-B/32": VIT_B_32, "ViT-L/14": VIT_L_14}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model's rates in images a second, a value a round."""

    model: str
    best_batch: int  # of the bare forward pass
    chosen_batch: int  # by the engine
    bare: list[float]
    engine: list[float]
    whole: list[float]

    def ratios(self, side: Sequence[float]) -> list[float]:
        """The rates of a side by the bare ones, a value a round, ascending."""
        return sorted(rate / bare for rate, bare in zip(side, self.bare, strict=True))


async def measure(model: str, clip: Clip, device: Device, count: int, rounds: int) -> Row:
    """Return a row; the sides take turns."""
    images = noise(min(count, 256), clip.resize)
    best = max(BATCHES, key=lambda batch: bare_rate(clip, device, images, batch, count))
    sides: dict[str, list[float]] = {"bare": [], "engine": [], "whole": []}
    policy, stub = ResidencyPolicy(host_is_device=True), InstantModel()
    engine = Engine(
        clip,
        stub,
        stub,
        embed_batch=32 if device.is_host else None,
        caption_batch=1,
        residency=policy,
        text_residency=policy,
    )
    async with engine:
        serving = asyncio.create_task(engine.run())
        for number in range(rounds + 1):
            rates = {
                "bare": bare_rate(clip, device, images, best, count),
                "engine": await engine_rate(engine, images, count),
                "whole": await whole_rate(engine, clip.resize, count),
            }
            if number:  # the first one warms all up
                for side, rate in rates.items():
                    sides[side].append(rate)
        serving.cancel()
    chosen = engine.queues["CLIP"].size.limit
    return Row(model=model, best_batch=best, chosen_batch=chosen, **sides)


def bare_rate(
    clip: Clip, device: Device, images: Sequence[Pixels], batch: int, count: int
) -> float:
    """Return the images a second of the forward pass alone; 0: the batch does not fit."""
    filled = [images[n % len(images)] for n in range(batch)]
    with torch.inference_mode():
        values = clip._normalization.apply(filled, device)
        steps = max(1, count // batch)

        def forward() -> None:
            for _ in range(steps):
                clip._model(pixel_values=values)
            if not device.is_host:
                torch.cuda.synchronize(device.torch_device)

        try:
            return steps * batch / _seconds(forward)
        except torch.OutOfMemoryError:
            return 0.0


async def engine_rate(engine: Engine, images: Sequence[Pixels], count: int) -> float:
    """Return the images a second of the engine, all of which wait from the beginning."""
    started = time.perf_counter()
    await asyncio.gather(
        *(engine.infer({Task.EMBED: images[n % len(images)]}) for n in range(count))
    )
    return count / (time.perf_counter() - started)


async def whole_rate(engine: Engine, resize: Resize, count: int) -> float:
    """Return the images a second from signed records to signed results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = settings_for(folder, port=9)
        records = records_of(settings, _photo_in(folder), count)
        async with open_sources(settings) as sources, real_decoder(usable_cores()) as decoder:
            await sources.ready()
            preparation = fetch_and_decode(settings, sources, decoder, {Task.EMBED: resize})
            seconds, _ = await carry(settings, records, preparation, engine)
    return count / seconds


def _photo_in(folder: Path) -> str:
    photo = folder / "photo.jpg"
    photo.write_bytes(jpeg(66_000))
    return photo.as_uri()


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run_tests() -> str:
    """Run the tests of a device, and say what came of them."""
    if importlib.util.find_spec("pytest") is None:
        return "not run: pytest is not installed"
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"


def card(device: Device) -> str:
    """Return the name of the device."""
    if device.is_host:
        return platform.processor() or "a CPU"
    return torch.cuda.get_device_name(device.torch_device)


def report(name: str, rows: Sequence[Row], captions: Sequence[caption.Row]) -> bool:
    """Print the tables; return whether the goal is reached."""
    print("| card | model | bare, images/s (batch) | engine (batch) | of bare | whole | of bare |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    reached = True
    for row in rows:
        bare, fed, whole = map(statistics.median, (row.bare, row.engine, row.whole))
        ratio = statistics.median(row.ratios(row.engine))
        reached &= row.model != "ViT-L/14" or ratio >= GOAL
        print(
            f"| {name} | {row.model} | {bare:,.0f} ({row.best_batch}) | "
            f"{fed:,.0f} ({row.chosen_batch}) | {_spread(row.ratios(row.engine))} | "
            f"{whole:,.0f} | {_spread(row.ratios(row.whole))} |"
        )
    caption.report(captions)
    return reached


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Test, measure, print, and return the exit code: 1 if the goal is not reached."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=8192, help="images of a run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (%(default)s)")
    parser.add_argument("--small", action="store_true", help="small models: to try the script")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    device = choose_device()
    print(f"{card(device)}; {device}; torch {torch.__version__}; tests/gpu: {run_tests()}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for model, size in SIZES.items():
            clip = _clip(Path(name, model.replace("/", "-")), SMALL if options.small else size)
            rows.append(asyncio.run(measure(model, clip, device, options.count, options.rounds)))
            del clip
        blip = Path(name, "blip")
        save_random_blip(blip, SMALL if options.small else BLIP_BASE)
        captions = caption.measure(blip, options.rounds, 10, device.torch_device.type)
    if options.json:
        figures = {"card": card(device), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if report(card(device), rows, captions) else 1


def _clip(folder: Path, size: Size) -> Clip:
    save_random_clip(folder, size)
    return load_clip(inspect(str(folder), "main", "clip"), choose_device())


if __name__ == "__main__":
    sys.exit(main())
