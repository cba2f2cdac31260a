"""How many cores feed a card, for each kind of picture: what decodes it, fetches it and carries it.

`python -m benchmarks.cores`: CPU of one core for decoding a picture to CLIP's size as the decoding
processes do, times the rate at which a card computes (`benchmarks.simulated_device`, which says
what is assumed and what is derived). The consumer's own process and those that fetch come on top,
as `benchmarks.ceiling` measured them on the machine that docs/performance.md names.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.decoding import photo
from benchmarks.instant import RESIZES
from benchmarks.simulated_device import BFLOAT16_TFLOPS, H100_IMAGES_PER_SECOND, Case
from consumer.images.decoding.image import decode
from consumer.images.decoding.limits import DecodeLimits, Format

# Milliseconds of CPU beside decoding: the consumer's own process, and a fetching one.
OWN_MS: Final = 0.35
FETCH_MS: Final = 0.25
_LIMITS: Final = DecodeLimits(formats=tuple(Format))
_KINDS: Final[Mapping[str, tuple[str, float, Mapping[str, object]]]] = {
    "JPEG, 0.3 megapixels": ("JPEG", 0.3, {"quality": 85}),
    "JPEG, 2 megapixels": ("JPEG", 2, {"quality": 85}),
    "JPEG, 12 megapixels": ("JPEG", 12, {"quality": 85}),
    "progressive JPEG, 12 megapixels": ("JPEG", 12, {"quality": 85, "progressive": True}),
    "WebP, 2 megapixels": ("WEBP", 2, {"quality": 80}),
    "PNG, 2 megapixels": ("PNG", 2, {}),
    "AVIF, 12 megapixels": ("AVIF", 12, {"quality": 60, "speed": 8}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of picture: its bytes, and milliseconds of CPU to decode it."""

    name: str
    byte_length: int
    decode_ms: float

    def cores(self, images_per_second: float) -> int:
        """Return the cores that keep up with a card of that rate."""
        return math.ceil(images_per_second * (self.decode_ms + OWN_MS + FETCH_MS) / 1000)


def measure(rounds: int, *, largest_megapixels: float = math.inf) -> list[Kind]:
    """Return what each kind takes: the least of `rounds`, since others can only add to it."""
    kinds = []
    for name, (kind, megapixels, options) in _KINDS.items():
        if megapixels > largest_megapixels:
            continue
        data = photo(kind, megapixels, options)
        seconds = []
        for _ in range(rounds + 1):
            started = time.process_time()
            decode(data, RESIZES, _LIMITS)
            seconds.append(time.process_time() - started)
        kinds.append(Kind(name=name, byte_length=len(data), decode_ms=min(seconds) * 1000))
    return kinds


def report(kinds: list[Kind]) -> None:
    """Print a row for each kind, with the cores for each card and model."""
    cases = [
        Case(card=card, model=model, way="decoded")
        for model in H100_IMAGES_PER_SECOND
        for card in BFLOAT16_TFLOPS
    ]
    heads = [f"{case.card}, {case.model}: {case.images_per_second:,.0f}/s" for case in cases]
    print(f"| picture | KB | decode, ms | {' | '.join(heads)} |")
    print("| --- " * (3 + len(cases)) + "|")
    for kind in kinds:
        cores = [str(kind.cores(case.images_per_second)) for case in cases]
        size = f"{kind.byte_length / 1000:.0f}"
        print(f"| {kind.name} | {size} | {kind.decode_ms:.1f} | {' | '.join(cores)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cores",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    kinds = measure(options.rounds)
    report(kinds)
    if options.json:
        options.json.write_text(json.dumps([asdict(kind) for kind in kinds], indent=2) + "\n")


if __name__ == "__main__":
    main()
