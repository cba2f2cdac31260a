"""CLIP's image tower on the CPU by dtype: images a second, and how far the vectors move.

`python -m benchmarks.dtypes [FOLDER]`: ViT-B/32 with random weights, or the checkpoint of a folder.
The dtypes take turns. Cosines are those to float32's vectors.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import VIT_B_32, noise, save_random_clip
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import Clip, load_clip
from consumer.inference.models.device import choose_device
from consumer.pixels import Pixels

PROMISED_COSINE = 0.9999
BATCHES = (1, 8, 32)
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Images a second by batch, a value a dtype, and the least cosine of 64 pictures."""

    images_per_second: Mapping[int, Sequence[float]]
    least_cosine: float


def main() -> int:
    """Measure, print, and return the exit code: 1 if a vector of bfloat16 is too far."""
    parser = argparse.ArgumentParser(description="CLIP's image tower by dtype")
    parser.add_argument("folder", nargs="?", type=Path, help="a checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        if arguments.folder is None:
            save_random_clip(folder, VIT_B_32)
        figures = measure(folder, arguments.rounds)
    print("| batch | float32, images/s | bfloat16, images/s | ratio |\n| --- | --- | --- | --- |")
    for batch, (single, half) in figures.images_per_second.items():
        print(f"| {batch} | {single:.1f} | {half:.1f} | {half / single:.2f} |")
    print(f"least cosine {figures.least_cosine:.5f}; promised at least {PROMISED_COSINE}")
    print(f"DTYPE=auto is {choose_device('cpu').dtype} here")
    return int(figures.least_cosine < PROMISED_COSINE)


def measure(folder: Path, rounds: int) -> Figures:
    """Return the figures of a checkpoint."""
    checkpoint = inspect(str(folder), "main", "clip")
    towers = [load_clip(checkpoint, choose_device("cpu", dtype)) for dtype in DTYPES]
    images = noise(64, towers[0].resize)
    single, half = (tower.embed(images) for tower in towers)
    return Figures(
        images_per_second={n: _rates(towers, images[:n], rounds) for n in BATCHES},
        least_cosine=float((single * half).sum(axis=1).min()),
    )


def _rates(towers: Sequence[Clip], images: Sequence[Pixels], rounds: int) -> list[float]:
    seconds: list[list[float]] = [[] for _ in towers]
    for _ in range(rounds):
        for tower, found in zip(towers, seconds, strict=True):
            started = time.perf_counter()
            tower.embed(images)
            found.append(time.perf_counter() - started)
    return [len(images) / statistics.median(found) for found in seconds]


if __name__ == "__main__":
    sys.exit(main())
