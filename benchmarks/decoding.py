"""What it costs to decode in processes of their own: images per second beside plain threads.

`python -m benchmarks.decoding` runs both in turn, with as many workers as there are cores, over the
same photos, and exits with 1 when the processes do less than the promise.
"""

import asyncio
import io
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from PIL import Image

from consumer.images.decoding.cost import estimated_seconds
from consumer.images.decoding.image import decode
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.sealed import SealedImage
from consumer.pixels import DecodedImage, Resize
from schemas import Task

PROMISED_SHARE: Final = 0.85
ROUNDS: Final = 9
PASSES: Final = 3  # of the photos, in one round
IN_FLIGHT: Final = 4  # images for each worker, so that none waits for the event loop
# Format, megapixels and options: what cameras, phones and web sites write.
PHOTOS: Final = (
    ("JPEG", 2, {"quality": 85}),
    ("JPEG", 2, {"quality": 85, "progressive": True}),
    ("JPEG", 4, {"quality": 85}),
    ("JPEG", 8, {"quality": 90}),
    ("JPEG", 12, {"quality": 85}),
    ("JPEG", 12, {"quality": 92}),
    ("PNG", 2, {"compress_level": 6}),
    ("WEBP", 2, {"quality": 80}),
)
# As CLIP ViT-B/32 and BLIP base take them.
TARGETS: Final = {
    Task.EMBED: Resize(height=224, width=224, resample=3, crop=True, shortest_edge=224),
    Task.CAPTION: Resize(height=384, width=384, resample=3, crop=False),
}
LIMITS: Final = DecodeLimits()

Decode = Callable[[bytes], Awaitable[DecodedImage]]


def main() -> int:
    """Print the rates; return 0 when the promise holds, else 1."""
    photos = [photo(*each) for each in PHOTOS]
    workers = len(os.sched_getaffinity(0))
    megabytes = sum(map(len, photos)) / len(photos) / 1e6
    print(f"{len(photos)} photos of 2 to 12 megapixels, {megabytes:.1f} MB on average")
    print(f"{workers} workers, {ROUNDS} rounds, one of threads and one of processes in turn")
    share = asyncio.run(_measure(photos * PASSES, workers))
    met = share >= PROMISED_SHARE
    print(
        f"promise: at least {PROMISED_SHARE} of the threads' rate; "
        f"measured {share:.3f}: {'met' if met else 'NOT met'}"
    )
    return 0 if met else 1


async def _measure(photos: Sequence[bytes], workers: int) -> float:
    loop = asyncio.get_running_loop()
    cpu = Cpu()
    async with _decoder(workers):
        pass
    sealed = {
        data: SealedImage.of(data, estimated_seconds(data, LIMITS)) for data in photos
    }  # whoever fetches does that
    start_seconds, cpu, pairs = cpu.ended_children(), Cpu(), []
    with ThreadPoolExecutor(workers) as threads:
        async with _decoder(workers) as decoder:

            async def in_thread(data: bytes) -> DecodedImage:
                return await loop.run_in_executor(threads, decode, data, TARGETS, LIMITS)

            async def in_process(data: bytes) -> DecodedImage:
                return await decoder.decode(sealed[data], TARGETS)

            for _ in range(ROUNDS):
                cpu.begin()
                by_threads = await _rate(in_thread, photos, workers)
                cpu.threads += cpu.begin()
                by_processes = await _rate(in_process, photos, workers)
                cpu.consumer += cpu.begin()
                pairs.append((by_threads, by_processes))
    cpu.workers = cpu.ended_children() - start_seconds
    for name, rates in zip(("threads", "processes"), zip(*pairs, strict=True), strict=True):
        print(f"{name:<10}{statistics.median(rates):8.1f} images/s")
    shares = sorted(processes / threads for threads, processes in pairs)
    print(f"share: median {statistics.median(shares):.3f}, {shares[0]:.3f} to {shares[-1]:.3f}")
    cost = (cpu.consumer + cpu.workers) / cpu.threads
    threads_ms, consumer_ms, workers_ms = (
        seconds * 1000 / ROUNDS / len(photos)
        for seconds in (cpu.threads, cpu.consumer, cpu.workers)
    )
    print(f"CPU to start: {start_seconds / workers * 1000:.0f} ms a process")
    print(
        f"CPU an image: threads {threads_ms:.1f} ms; processes {workers_ms:.1f} ms and in the "
        f"consumer {consumer_ms:.2f} ms, {cost:.3f} of the threads'"
    )
    # On a busy machine the kernel may favour either; what is computed it cannot change.
    return min(statistics.median(shares), 1 / cost)


class Cpu:
    """Seconds of CPU: of this process since it was last asked, and of the children that ended."""

    def __init__(self) -> None:
        self.threads = self.consumer = self.workers = 0.0
        self._begun = 0.0
        self._before = self._children()

    def begin(self) -> float:
        """Return what this process used since the last call."""
        begun, self._begun = self._begun, time.process_time()
        return self._begun - begun

    def ended_children(self) -> float:
        """Return what children used that ended since this was made."""
        return self._children() - self._before

    @staticmethod
    def _children() -> float:
        times = os.times()
        return times.children_user + times.children_system


def _decoder(workers: int) -> Decoder:
    return Decoder(LIMITS, timeout_seconds=60, workers=workers)


async def _rate(decode_one: Decode, photos: Sequence[bytes], workers: int) -> float:
    """Return the images decoded per second."""
    free = asyncio.Semaphore(IN_FLIGHT * workers)

    async def one(data: bytes) -> None:
        async with free:
            await decode_one(data)

    started = time.perf_counter()
    await asyncio.gather(*(one(data) for data in photos))
    return len(photos) / (time.perf_counter() - started)


def photo(kind: str, megapixels: float, options: Mapping[str, object]) -> bytes:
    """Return a picture with shapes of all sizes and some grain, so that it packs as photos do."""
    height = round((megapixels * 1e6 / (4 / 3)) ** 0.5)
    size = round(height * 4 / 3), height
    random = np.random.default_rng(round(megapixels))
    picture = np.zeros((height, size[0], 3), np.float32)
    for cells, weight in ((6, 0.6), (40, 0.25), (200, 0.15)):
        noise = random.integers(0, 256, (cells, cells, 3), np.uint8)
        picture += weight * np.asarray(
            Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        )
    picture += np.asarray(random.normal(0, 4, picture.shape), np.float32)
    buffer = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
