"""What may be decoded: formats and sizes. Pure, and without an image library: both ends know it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Format(StrEnum):
    """What `DECODE_FORMATS` can list. RAW stands for the cameras' formats in `RAW_KINDS`."""

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
# The thirstiest image of 50 megapixels, a turned WebP with alpha, takes 1,088 MiB of it.
DEFAULT_MEMORY_BYTES: Final = 5 * 2**28
RAW_KINDS: Final = frozenset({"DNG", "CR2", "NEF", "ARW"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What a header may announce. A side is in pixels; the aspect ratio is long by short side."""

    max_pixels: int = 50_000_000
    max_side: int = 30_000
    max_scans: int = 100  # of a JPEG; encoders write up to some ten
    max_aspect_ratio: int = 100  # the shortest-edge resize makes that many times 224 x 224 pixels
    formats: tuple[Format, ...] = DEFAULT_FORMATS

    def allows(self, kind: str) -> bool:
        """Say whether `kind`, as `magic.sniff` names it, is on the list."""
        return (Format.RAW if kind in RAW_KINDS else kind) in self.formats
