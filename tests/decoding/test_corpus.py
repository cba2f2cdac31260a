"""Bombs and broken files through the real decoder: each gives its code, in bounded memory."""

import sys

import pytest
from PIL import Image

from consumer.errors import Failed
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.pixels import Resize
from schemas import Code, Task
from tests import corpus
from tests.fakes import decoded
from tests.processes import child_workers, peak_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TARGETS = {Task.EMBED: Resize(height=224, width=224, resample=3, crop=True, shortest_edge=224)}


async def _code(decoder: Decoder, data: bytes) -> Code | None:
    try:
        await decoded(decoder, data, TARGETS)
    except Failed as failed:
        return failed.code
    return None


async def test_every_bomb_and_every_broken_file_gives_its_code() -> None:
    """All of them in one process, which neither dies nor grows beyond what 4 megapixels take."""
    limits = DecodeLimits(max_pixels=4_000_000)
    samples = list(corpus.samples())
    async with Decoder(limits, timeout_seconds=20, memory_bytes=2**29, workers=1) as decoder:
        (pid,) = before = child_workers()
        wrong = {
            sample.name: code
            for sample in samples
            if (code := await _code(decoder, sample.data)) is not sample.code
        }
        assert wrong == {}
        assert child_workers() == before
        largest = max(len(sample.data) for sample in samples)
        # The interpreter, the largest file, and 20 bytes a pixel.
        assert peak_bytes(pid) < 80 * 2**20 + largest + 20 * limits.max_pixels


async def test_largest_picture_that_is_allowed_fits_the_memory_that_is_given() -> None:
    """50 megapixels of the kind that takes most, a turned WebP with alpha, with all defaults."""
    picture = Image.new("RGBA", (7071, 7071), (10, 20, 30, 128))
    turned = Image.Exif()
    turned[0x0112] = 6
    data = corpus.encoded(picture, "WEBP", lossless=True, quality=0, method=0, exif=turned)
    async with Decoder(DecodeLimits(), timeout_seconds=60, workers=1) as decoder:
        assert await _code(decoder, data) is None
