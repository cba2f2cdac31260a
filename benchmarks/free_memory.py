"""What BLIP's leaving costs the device's thread, as after every batch with BLIP_IDLE_SECONDS=0.

`python -m benchmarks.free_memory`: BLIP of the real size with random weights, on the CPU, comes,
makes one caption and leaves, again and again, among the objects of torch and transformers, which
are hidden from the garbage collector as in the consumer. A way back to host memory is not in it:
on a CPU there is none.
"""

import argparse
import ctypes
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.caption import ours
from benchmarks.checkpoints import BLIP_BASE, SMALL, noise, save_random_blip
from consumer.inference.models.device import free_memory
from consumer.runtime import limits

TOKENS: Final = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.free_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="a small model: to try the benchmark")
    parser.add_argument("--json", type=Path, help="write every round's values to this file")
    arguments = parser.parse_args()
    limits.collect_seldom()
    with tempfile.TemporaryDirectory() as folder:
        with limits.permanent_objects():
            save_random_blip(Path(folder), SMALL if arguments.small else BLIP_BASE)
        seconds = measure(Path(folder), arguments.rounds)
    report(seconds)
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=1) + "\n")


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each part, a value a round."""
    captioner = ours(folder, "auto", TOKENS)
    images = noise(1, captioner.resize)
    captioner.caption(images)
    captioner.unload()
    seconds: dict[str, list[float]] = {}

    def timed(name: str, step: Callable[[], object]) -> None:
        started = time.perf_counter()
        step()
        seconds.setdefault(name, []).append(time.perf_counter() - started)

    for _ in range(rounds):
        timed("load, in a thread of its own", captioner.load)
        captioner.to_device()
        timed("caption", lambda: captioner.caption(images))
        timed("leave", captioner.unload)
        timed("free_memory with nothing to free", free_memory)
        timed("of it, the collection of garbage", gc.collect)
        timed("of it, malloc_trim", lambda: ctypes.CDLL(None).malloc_trim(0))
    return seconds


def report(seconds: dict[str, list[float]]) -> None:
    """Print the table."""
    print("| step | ms, median | least to most |")
    print("| --- | --- | --- |")
    for name, values in seconds.items():
        in_ms = [value * 1000 for value in values]
        print(f"| {name} | {statistics.median(in_ms):.1f} | {min(in_ms):.1f} to {max(in_ms):.1f} |")


if __name__ == "__main__":
    main()
