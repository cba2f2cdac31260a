"""Captions a second through a whole consumer, beside `generate` on a batch of the same size.

`python -m benchmarks.served_captions`: the embedded broker, a consumer on the CPU, `file:`
references to a photo of 640 x 480, captions alone; BLIP of the real size with random weights, whose
captions have as many tokens as they may. The reference is that of `benchmarks.caption`: float32,
eager attention, pictures resized already. It is measured before and after each round, while the
consumer has nothing to do.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.caption import reference
from benchmarks.checkpoints import BLIP_BASE, SMALL, noise, save_random_blip
from benchmarks.instant import jpeg
from benchmarks.served import served
from benchmarks.whole import requests_of, seconds_until_done
from consumer.pixels import Resize
from schemas import Task

BATCH: Final = 8
TOKENS: Final = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="captions through a whole consumer")
    parser.add_argument("--count", type=int, default=32, help="captions of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a small model: to try the benchmark")
    options = parser.parse_args()
    size = SMALL if options.small else BLIP_BASE
    print("| dtype | captions/s | of generate's |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="imagelane-captions-") as name:
        folder = Path(name)
        save_random_blip(folder / "blip", size)
        side = size.image_side
        pictures = noise(BATCH, Resize(height=side, width=side, resample=3, crop=False))
        generate = reference(folder / "blip", TOKENS, "cpu")
        for dtype in ("float32", "bfloat16"):
            (folder / dtype).mkdir()
            rates, ratios = asyncio.run(
                measure(
                    folder / dtype,
                    folder / "blip",
                    lambda: generate(pictures),
                    dtype=dtype,
                    count=options.count,
                    rounds=options.rounds,
                )
            )
            low, high = min(ratios), max(ratios)
            print(
                f"| {dtype} | {statistics.median(rates):.2f} | "
                f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) |"
            )


async def measure(
    folder: Path,
    checkpoint: Path,
    generate: Callable[[], object],
    *,
    dtype: str,
    count: int,
    rounds: int,
) -> tuple[list[float], list[float]]:
    """Return captions a second, and their ratios to those of `generate`, a value a round each."""
    photo = folder / "photo.jpg"
    photo.write_bytes(jpeg(66_000))
    opened = served(
        folder,
        BLIP_MODEL=str(checkpoint),
        DTYPE=dtype,
        CAPTION_BATCH=str(BATCH),
        CAPTION_MAX_TOKENS=str(TOKENS),
        BLIP_IDLE_SECONDS="3600",
    )
    async with opened as (client, topics):
        requests = requests_of(photo, Task.CAPTION)
        await seconds_until_done(client, topics.ingest, requests("warm", BATCH))
        references, rates = [_rate(generate)], []
        for number in range(rounds):
            asked = requests(f"round{number}-", count)
            rates.append(count / await seconds_until_done(client, topics.ingest, asked))
            references.append(_rate(generate))
    return rates, [
        rate / statistics.mean(around)
        for rate, around in zip(rates, pairwise(references), strict=True)
    ]


def _rate(generate: Callable[[], object]) -> float:
    started = time.perf_counter()
    generate()
    return BATCH / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
