"""Mutated images of every format through the decoder and its processes."""

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer.errors import Failed
from consumer.images.decoding.limits import DecodeLimits, Format
from consumer.images.decoding.pool import Decoder
from consumer.pixels import Resize
from schemas import Code, Stage, Task
from tests import pictures
from tests.fakes import decoded
from tests.fuzz.conftest import Scale
from tests.fuzz.mutation import mutated
from tests.processes import child_workers, peak_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LIMITS = DecodeLimits(max_pixels=2_000_000, formats=tuple(Format))
MEMORY_BYTES = 2**29
TARGETS = {
    Task.EMBED: Resize(height=16, width=16, resample=3, crop=True, shortest_edge=16),
    Task.CAPTION: Resize(height=24, width=20, resample=3, crop=False),
}
# Every input that the decoder ever had no verdict for is kept here, and comes first in every run.
FAILURES = Path(__file__).parent / "failures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """What became of an input: `ok` or a code, and whether it cost a process."""

    outcome: str
    message: str
    fatal: bool


async def test_mutated_images_cost_themselves_alone(scale: Scale) -> None:
    """Pixels within the limits or a code of decoding, in bounded memory; no process dies."""
    seeds = [*pictures.seeds(), *pictures.extras()]
    random = scale.random("images")
    kept = [path.read_bytes() for path in sorted(FAILURES.glob("*.bin"))]
    inputs = kept + [
        mutated(random, seeds[index % len(seeds)], seeds)
        for index in range(scale.inputs(full=100_000, short=2_000))
    ]
    async with Decoder(LIMITS, timeout_seconds=20, memory_bytes=MEMORY_BYTES, workers=2) as decoder:
        before, own_peak = child_workers(), peak_bytes()
        waiting = iter(enumerate(inputs))
        shots: list[Shot] = []

        async def shoot() -> None:
            for index, data in waiting:
                shot = await _shot(decoder, data)
                shots.append(shot)
                if shot.fatal and index >= len(kept):
                    _keep(scale, index, data)

        await asyncio.gather(*(shoot() for _ in range(4)))
        after = child_workers()
        peak = max(map(peak_bytes, after))
    print(dict(Counter(shot.outcome for shot in shots).most_common()))  # noqa: T201 - for people
    assert len(shots) == len(inputs)
    assert [shot for shot in shots if shot.fatal] == []
    assert after == before
    assert peak < MEMORY_BYTES
    assert peak_bytes() - own_peak < 64 * 2**20  # outcomes are kept here, no picture is


async def _shot(decoder: Decoder, data: bytes) -> Shot:
    try:
        image = await decoded(decoder, data, TARGETS)
    except Failed as failed:
        # No memory, as a header asked for too much, is a verdict; all else is a find.
        fatal = failed.code is Code.DECODER_CRASHED and "no memory" not in failed.message
        fatal |= failed.code.stage is not Stage.DECODE
        return Shot(outcome=failed.code, message=failed.message, fatal=fatal)
    assert image.width * image.height <= LIMITS.max_pixels
    assert max(image.width, image.height) <= LIMITS.max_side
    assert LIMITS.allows(image.format)
    assert {task: pixels.shape for task, pixels in image.pixels.items()} == {
        Task.EMBED: (16, 16, 3),
        Task.CAPTION: (24, 20, 3),
    }
    return Shot(outcome="ok", message=image.format, fatal=False)


def _keep(scale: Scale, index: int, data: bytes) -> None:
    FAILURES.mkdir(exist_ok=True)
    (FAILURES / f"{scale.seed}-{index}.bin").write_bytes(data)
