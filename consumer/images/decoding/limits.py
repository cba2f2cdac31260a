"""The limits of decoding: formats and sizes. Pure, and no image library: both ends import it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Format(StrEnum):
    """The values of `DECODE_FORMATS`. RAW stands for the cameras' formats in `RAW_KINDS`."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    AVIF = "AVIF"
    HEIC = "HEIC"
    RAW = "RAW"


DEFAULT_FORMATS: Final = (Format.JPEG, Format.PNG, Format.WEBP, Format.GIF, Format.BMP)
DEFAULT_MEMORY_BYTES: Final = 5 * 2**28
# The interpreter, its segment and the file; then bytes of each pixel, for the mode that takes most.
_OWN_BYTES: Final = 240 * 2**20
_BYTES_PER_PIXEL: Final = {
    "JPEG": 2,  # decoded at a half to an eighth of its sides
    "PNG": 15,
    "WEBP": 20,
    "GIF": 15,
    "BMP": 15,
    "TIFF": 20,
    "AVIF": 20,
    "HEIC": 15,
}
_WHOLE_JPEG_BYTES: Final = 10  # a progressive one holds all its coefficients, a lossless all pixels
_RAW_BYTES: Final = 12
RAW_KINDS: Final = frozenset({"DNG", "CR2", "NEF", "ARW"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """The most that a header may announce. Sides are in pixels; the ratio is long by short side.

    `max_pixels` holds for every format; `memory_bytes` may allow fewer of a hungry one.
    """

    max_pixels: int = 200_000_000
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    max_side: int = 30_000
    max_scans: int = 100  # of a JPEG; encoders write up to some ten
    max_aspect_ratio: int = 100  # the shortest-edge resize makes that many times 224 x 224 pixels
    formats: tuple[Format, ...] = DEFAULT_FORMATS

    def allows(self, kind: str) -> bool:
        """Whether `kind`, as `magic.sniff` names it, is on the list."""
        return (Format.RAW if kind in RAW_KINDS else kind) in self.formats

    def pixels(self, kind: str, *, is_whole: bool = False) -> int:
        """Return how many pixels an image of `kind` may have.

        `is_whole`: a JPEG that is not decoded at a part of its size, but held in full.
        """
        each = _BYTES_PER_PIXEL.get(kind, _RAW_BYTES)
        if is_whole:
            each = _WHOLE_JPEG_BYTES
        return min(self.max_pixels, max(0, self.memory_bytes - _OWN_BYTES) // each)
