"""How much of the time a card would be busy, if this machine fed it.

`python -m benchmarks.simulated_device`: partition worker, admission, engine and writer are the real
ones; the model's step sleeps as long as the card computes, so it takes no core. Each card gets its
pictures three ways:

    memory   nothing is fetched or decoded: what the worker and the engine can feed
    hollow   `file:` of 66 KB, and caged decoding processes that answer without decoding
    decoded  `file:` of 66 KB, a photo of 640 x 480, and the consumer's own decoding

Rates of an H100 in bfloat16 are assumed: 2,000 to 2,500 pictures a second for ViT-L/14 and 10,000
to 20,000 for ViT-B/32, of which the table takes the middle. The other cards' are those, times the
ratio of the dense bfloat16 rates in NVIDIA's data sheets (H100 SXM 989 TFLOPS, RTX 4090 165, L4
121). A step of n pictures takes n times a picture's time. A run has as many pictures as the card
computes in `--seconds`, 20,000 at most; taking the first and committing the last are in it.
"""

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from benchmarks.carriage import carry, fetch_and_decode, opened_engine, records_of, settings_for
from benchmarks.ceiling import ConstantPreparation
from benchmarks.instant import InstantModel, hollow_processes, jpeg, real_decoder
from consumer.image_sources import open_sources
from consumer.images.decoding.pool import Decoder
from consumer.inference.engine import Engine
from consumer.runtime import limits

H100_IMAGES_PER_SECOND: Final = {"ViT-L/14": 2_250, "ViT-B/32": 15_000}
BFLOAT16_TFLOPS: Final = {"H100": 989, "RTX 4090": 165, "L4": 121}
GOALS: Final = {("H100", "ViT-L/14"): 0.95, ("H100", "ViT-B/32"): 0.35}
_MOST_IMAGES: Final = 20_000
WAYS: Final = ("memory", "hollow", "decoded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row: which card computes which model, and how pictures come to it."""

    card: str
    model: str
    way: str

    @property
    def images_per_second(self) -> float:
        """The rate at which the card computes."""
        share = BFLOAT16_TFLOPS[self.card] / BFLOAT16_TFLOPS["H100"]
        return H100_IMAGES_PER_SECOND[self.model] * share


class Card:
    """A device that is busy for as long as a card would be, and counts it."""

    def __init__(self, images_per_second: float) -> None:
        self._seconds_per_image = 1 / images_per_second
        self.busy_seconds = 0.0

    def step(self, images: int) -> None:
        """Sleep for a step of `images` pictures."""
        seconds = images * self._seconds_per_image
        started = time.perf_counter()
        time.sleep(seconds)
        # A sleep takes longer than it should: the card would have been free by then.
        self.busy_seconds += min(seconds, time.perf_counter() - started)


async def measure(
    folder: Path, seconds: float, rounds: int, only: str | None = None
) -> dict[Case, list[float]]:
    """Return the busy shares of each case, one a round; the cases take turns."""
    cases = [
        Case(card=card, model=model, way=way)
        for model in H100_IMAGES_PER_SECOND
        for card in BFLOAT16_TFLOPS
        for way in WAYS
        if only in (None, way)
    ]
    (folder / "photo.jpg").write_bytes(jpeg(66_000))
    shares: dict[Case, list[float]] = {case: [] for case in cases}
    async with AsyncExitStack() as opened:
        with hollow_processes(folder):
            hollow = await opened.enter_async_context(real_decoder(2))
        decoders = {"hollow": hollow, "decoded": await opened.enter_async_context(real_decoder(2))}
        for _ in range(rounds):
            for case in cases:
                shares[case].append(await busy_share(folder, case, decoders, seconds))
    return shares


async def busy_share(
    folder: Path, case: Case, decoders: Mapping[str, Decoder], run_seconds: float
) -> float:
    """Return the share of a run in which the card was busy."""
    settings = settings_for(folder, port=9)
    card = Card(case.images_per_second)
    count = min(_MOST_IMAGES, round(case.images_per_second * run_seconds))
    records = records_of(settings, f"file://{folder}/photo.jpg", count)
    async with (
        open_sources(settings) as sources,
        opened_engine(Engine, InstantModel(step=card.step)) as engine,
    ):
        await sources.ready()
        preparation = (
            ConstantPreparation()
            if case.way == "memory"
            else fetch_and_decode(settings, sources, decoders[case.way])
        )
        card.busy_seconds = 0.0  # opening has warmed it up
        seconds, _ = await carry(settings, records, preparation, engine)
    return card.busy_seconds / seconds


def report(shares: Mapping[Case, list[float]], path: Path | None) -> bool:
    """Print the table, write it as JSON if a path is given; return whether goals are reached."""
    reached = True
    print("| model | card | images/s | pictures | busy | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case, values in shares.items():
        goal = GOALS.get((case.card, case.model)) if case.way == "hollow" else None
        share = statistics.median(values)
        reached &= goal is None or share >= goal
        print(
            f"| {case.model} | {case.card} | {case.images_per_second:,.0f} | {case.way} | "
            f"{share:.2f} ({min(values):.2f} to {max(values):.2f}) | {goal or ''} |"
        )
    if path:
        rows = [
            {"card": case.card, "model": case.model, "pictures": case.way, "busy": values}
            for case, values in shares.items()
        ]
        path.write_text(json.dumps(rows, indent=1))
    return reached


def main() -> int:
    """Measure, print, and return the exit code: 1 if a goal is not reached."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulated_device",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=WAYS, help="one way of the pictures")
    parser.add_argument(
        "--seconds", type=float, default=3, help="of the card's work a run (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each row (%(default)s)")
    parser.add_argument("--json", type=Path, help="write every round's values to this file")
    arguments = parser.parse_args()
    limits.tune_memory()  # as the consumer does
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        shares = asyncio.run(
            measure(Path(folder), arguments.seconds, arguments.rounds, arguments.only)
        )
    return 0 if report(shares, arguments.json) else 1


if __name__ == "__main__":
    raise SystemExit(main())
