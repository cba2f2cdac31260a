"""Images a second as a user runs it, beside what decoding and model alone allow on these cores.

`python -m benchmarks.whole`: the embedded broker, a consumer process on the CPU, `file:` references
to photos of 640 x 480, embedding alone; ViT-B/32 with random weights, or with `--tiny` the tiny
checkpoint. The bound is one image's bare decoding, shared by all cores, and its share of a bare
batch of 32, one after the other; it is measured before and after each round, while the consumer has
nothing to do. Progress is counted by verified results. A lone request's time is that from its
publishing to its verified result, without the bare model's. A round has more pictures than the
2,000 in flight: decoding runs that far ahead of the model.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.checkpoints import VIT_B_32, noise, save_random_clip
from benchmarks.instant import jpeg
from benchmarks.served import served
from consumer.images.decoding.image import decode
from consumer.images.decoding.limits import DecodeLimits
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import Clip, load_clip
from consumer.inference.models.device import choose_device
from schemas import Request, Task
from tests.consumer_process import MODELS
from tests.request_client import Client

BATCH: Final = 32
LONE_REQUESTS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Images a second, and milliseconds of requests from publishing to the verified result."""

    images_per_second: list[float]  # a value a round, as of the next
    ratios: list[float]  # of the bound
    lone_beyond_model_ms: tuple[float, float]
    half_load_ms: tuple[float, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="images a second as a user runs it")
    parser.add_argument("--count", type=int, help="images of a round (600; tiny: 5,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tiny", action="store_true", help="the tiny checkpoint")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    count = options.count or (5000 if options.tiny else 600)
    with tempfile.TemporaryDirectory(prefix="imagelane-whole-") as name:
        folder, checkpoint = Path(name), MODELS / "tiny-clip"
        if not options.tiny:
            checkpoint = folder / "clip"
            save_random_clip(checkpoint, VIT_B_32)
        figures = asyncio.run(measure(folder, checkpoint, options.dtype, count, options.rounds))
    if options.json:
        row = {**asdict(figures), "dtype": options.dtype}
        options.json.write_text(json.dumps(row, indent=2) + "\n")
    report(figures)


def report(figures: Figures) -> None:
    """Print the medians and their spread."""
    rate, ratios = statistics.median(figures.images_per_second), sorted(figures.ratios)
    lone, half = figures.lone_beyond_model_ms, figures.half_load_ms
    print(f"{rate:.1f} images/s; {statistics.median(ratios):.2f} of the bound", end=" ")
    print(f"({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"a lone request beyond the model: p50 {lone[0]:.0f} ms, p99 {lone[1]:.0f} ms")
    print(f"a request at half of that load: p50 {half[0]:.0f} ms, p99 {half[1]:.0f} ms")


async def measure(folder: Path, checkpoint: Path, dtype: str, count: int, rounds: int) -> Figures:
    """Return the figures of a checkpoint."""
    clip = load_clip(inspect(str(checkpoint), "main", "clip"), choose_device("cpu", dtype))
    photo = folder / "photo.jpg"
    photo.write_bytes(jpeg(66_000))
    async with served(folder, CLIP_MODEL=str(checkpoint), DTYPE=dtype) as (client, topics):
        requests, topic = requests_of(photo), topics.ingest
        await seconds_until_done(client, topic, requests("warm", 2 * BATCH))
        bounds, rates = [bound(clip, photo.read_bytes())], []
        for number in range(rounds):
            seconds = await seconds_until_done(client, topic, requests(f"round{number}-", count))
            rates.append(count / seconds)
            bounds.append(bound(clip, photo.read_bytes()))
        picture = noise(1, clip.resize)
        model = _median_seconds(lambda: clip.embed(picture))
        alone = [
            await seconds_until_done(client, topic, [r]) for r in requests("lone", LONE_REQUESTS)
        ]
        load = statistics.median(rates) / 2
        half = await _paced(client, topic, requests("paced", count), load)
    return Figures(
        images_per_second=rates,
        ratios=[
            rate / statistics.mean(around)
            for rate, around in zip(rates, pairwise(bounds), strict=True)
        ],
        lone_beyond_model_ms=p50_p99_ms([one - model for one in alone]),
        half_load_ms=p50_p99_ms(half),
    )


def bound(clip: Clip, photo: bytes) -> float:
    """Return the images a second that bare decoding and bare model allow, one after the other."""
    targets, limits = {Task.EMBED: clip.resize}, DecodeLimits()
    decoding = _median_seconds(lambda: decode(photo, targets, limits)) / (os.cpu_count() or 1)
    batch = noise(BATCH, clip.resize)
    return 1 / (decoding + _median_seconds(lambda: clip.embed(batch)) / BATCH)


def requests_of(photo: Path, task: Task = Task.EMBED) -> Callable[[str, int], list[Request]]:
    """Return what makes requests for a task on a photo, by the name of their ids."""
    image = {"uri": photo.as_uri()}

    def make(name: str, count: int) -> list[Request]:
        return [
            Request(id=f"{name}{n}", image=image, tasks=(task,))  # type: ignore[arg-type]
            for n in range(count)
        ]

    return make


async def seconds_until_done(client: Client, topic: str, requests: list[Request]) -> float:
    """Return the time from the first request's publishing to the last one's verified result."""
    started = time.perf_counter()
    await client.send(topic, *requests)
    results = await client.wait_for(*(request.id for request in requests))
    seconds = time.perf_counter() - started
    failed = [r.id for r in requests if results[r.id].status != "ok"]
    if failed:
        raise RuntimeError(f"{len(failed)} images failed")
    return seconds


async def _paced(
    client: Client, topic: str, requests: list[Request], rate_per_second: float
) -> list[float]:
    """Return each request's seconds to its result, as a reader sees them in order."""
    started = time.perf_counter()
    due = [started + n / rate_per_second for n in range(len(requests))]

    async def publish() -> None:
        for request, at in zip(requests, due, strict=True):
            await asyncio.sleep(at - time.perf_counter())
            await client.send(topic, request)

    publishing = asyncio.create_task(publish())
    seconds = []
    for request, at in zip(requests, due, strict=True):
        await client.wait_for(request.id)
        seconds.append(time.perf_counter() - at)
    await publishing
    return seconds


def _median_seconds(work: Callable[[], object], times: int = 9) -> float:
    work()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def p50_p99_ms(seconds: list[float]) -> tuple[float, float]:
    """Return two percentiles, in milliseconds."""
    p50, p99 = np.percentile(seconds, (50, 99)) * 1000
    return float(p50), float(p99)


if __name__ == "__main__":
    main()
