"""One slow picture among many: the rate of the others with it, as a share of theirs without it.

`python -m benchmarks.slow_pictures` decodes photos of 2 to 12 megapixels in 4 processes, alone and
beside 1 and 10 % of pictures that pass the limit of scans and take long: progressive JPEGs of 50
megapixels in 0.3 MB, of 99 scans, 2.5 s of a core each. In turn, in one run; the rate is that of
the time in which all of the others were done. A machine that stumbles may make a photo outlast its
slice of time in the normal lane, which is counted. Exits with 1 when a promise is not met.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from typing import Final

from PIL import Image

from benchmarks.decoding import PHOTOS, TARGETS, photo
from consumer.errors import Failed
from consumer.images.decoding.cost import estimated_seconds
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.sealed import SealedImage
from tests.corpus import encoded

PROCESSES: Final = 4
PROMISED: Final = {0.01: 0.9, 0.1: 0.7}  # share of slow pictures: share of the others' rate
ROUNDS: Final = 3
IN_FLIGHT: Final = 400
OTHERS: Final = 594
_numbers = itertools.count()


def slow_picture() -> bytes:
    """Return a progressive JPEG of 50 megapixels and 99 scans; no two have one digest."""
    data = encoded(Image.new("RGB", (7071, 7071), (9, 99, 200)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (99 - data.count(b"\xff\xda")) + b"\xff\xd9"


async def _rate(decoder: Decoder, others: list[bytes], slow: bytes, share: float) -> float:
    """Return the photos per second beside slow pictures, which come evenly among them."""
    free, left = asyncio.Semaphore(IN_FLIGHT), len(others)
    replaced = decoder.lanes["decoder"].replaced
    done, refused = asyncio.Event(), 0

    async def one(data: bytes, *, is_slow: bool) -> None:
        nonlocal left, refused
        try:
            with SealedImage.of(data, estimated_seconds(data, DecodeLimits())) as image:
                await decoder.decode(image, TARGETS)
        except Failed:
            refused += 1
        finally:
            free.release()
        left -= not is_slow
        if not left:
            done.set()

    async with asyncio.TaskGroup() as tasks:
        started, owed, running = time.perf_counter(), 0.0, []
        for data in others:
            await free.acquire()
            running.append(tasks.create_task(one(data, is_slow=False)))
            owed += share / (1 - share)
            if owed >= 1:
                owed -= 1
                await free.acquire()
                distinct = slow + next(_numbers).to_bytes(8, "big")
                running.append(tasks.create_task(one(distinct, is_slow=True)))
        await done.wait()
        seconds = time.perf_counter() - started
        for task in running:
            task.cancel()
    outlasted = decoder.lanes["decoder"].replaced - replaced
    print(
        f"{share:5.0%} slow: {len(others) / seconds:6.1f} others/s, {refused} refused, "
        f"{outlasted} photos outlasted their slice",
        flush=True,
    )
    return len(others) / seconds


async def _measure(rounds: int) -> dict[float, float]:
    photos = [photo(*each) for each in PHOTOS]
    others, slow = (photos * OTHERS)[:OTHERS], slow_picture()
    shares: dict[float, list[float]] = {share: [] for share in PROMISED}
    async with Decoder(DecodeLimits(), timeout_seconds=20, workers=PROCESSES) as decoder:
        await _rate(decoder, others[:99], slow, 0.02)  # the slow lane is there
        for _ in range(rounds):
            for share, measured in shares.items():
                alone = await _rate(decoder, others, slow, 0)
                measured.append(await _rate(decoder, others, slow, share) / alone)
    return {share: statistics.median(measured) for share, measured in shares.items()}


def main() -> int:
    """Print the rates; return 0 when the promises hold, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slow_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each share (%(default)s)")
    met = True
    for share, kept in asyncio.run(_measure(parser.parse_args().rounds)).items():
        met &= kept >= PROMISED[share]
        print(f"{share:.0%} slow: the others keep {kept:.2f}; promised {PROMISED[share]}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
