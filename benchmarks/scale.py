"""Images a second by partitions, each with a consumer of its own, on one machine.

`python -m benchmarks.scale`: the embedded broker, `file:` references to photos of 66 KB,
embeddings, the tiny checkpoint on the CPU with one thread of torch and one decoding process each.
The rows take turns. On fewer cores than four for each consumer it says what sharing costs; where
there are more, what another one adds.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.instant import jpeg
from benchmarks.served import served
from benchmarks.whole import requests_of, seconds_until_done

PARTITIONS: Final = (1, 2, 4)
_WARM_UP: Final = 200  # images a partition: all consumers have their partition by then


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="images a second by partitions")
    parser.add_argument("--count", type=int, default=2000, help="images of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagelane-scale-") as name:
        rates = asyncio.run(measure(Path(name), PARTITIONS, options.count, options.rounds))
    print(f"{os.cpu_count()} cores")
    print("| partitions and consumers | images/s | of one |\n| --- | --- | --- |")
    for partitions, values in rates.items():
        rate = statistics.median(values)
        ratio = rate / statistics.median(rates[PARTITIONS[0]])
        print(
            f"| {partitions} | {rate:.0f} ({min(values):.0f} to {max(values):.0f}) | {ratio:.2f} |"
        )


async def measure(
    folder: Path, partitions: Sequence[int], count: int, rounds: int
) -> dict[int, list[float]]:
    """Return images a second, a value a round, by the number of partitions."""
    rates: dict[int, list[float]] = {number: [] for number in partitions}
    for _ in range(rounds):
        for number in partitions:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                rates[number].append(await _rate(Path(place), number, count))
    return rates


async def _rate(folder: Path, partitions: int, count: int) -> float:
    photo = folder / "photo.jpg"
    photo.write_bytes(jpeg(66_000))
    opened = served(folder, consumers=partitions, TORCH_THREADS="1", DECODE_PROCESSES="1")
    async with opened as (client, topics):
        requests = requests_of(photo)
        warm_up = requests("warm", _WARM_UP * partitions)
        await seconds_until_done(client, topics.ingest, warm_up)
        return count / await seconds_until_done(client, topics.ingest, requests("r", count))


if __name__ == "__main__":
    main()
