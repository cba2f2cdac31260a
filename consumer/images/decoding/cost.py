"""Estimates the time to decode a picture by its header. Pure; never raises.

Fetching processes ask for it: some microseconds, 0.4 ms for a progressive JPEG.

The numbers are seconds of CPU on one core of the machine that the project was measured on, with
Pillow 13. They only order the work: a picture that takes longer loses its process (`pool`).
"""

from typing import Final

from consumer.images.decoding.headers import Header, read_header
from consumer.images.decoding.limits import RAW_KINDS, DecodeLimits
from consumer.images.decoding.magic import sniff

# Seconds a megapixel: photos of 12 megapixels, and flat pictures of 50 where those take longer.
_SECONDS: Final = {
    "JPEG": 0.007,
    "PNG": 0.036,
    "WEBP": 0.026,
    "GIF": 0.017,
    "BMP": 0.013,
    "TIFF": 0.025,
    "AVIF": 0.023,
    "HEIC": 0.09,
}
_PROGRESSIVE_SECONDS: Final = 0.010
_ARITHMETIC_SECONDS: Final = 0.1
_LOSSLESS_SECONDS: Final = 0.03
_SCAN_SECONDS: Final = 0.0005  # of each scan of a progressive JPEG
_RAW_SECONDS: Final = 0.1  # a megabyte


def estimated_seconds(data: bytes, limits: DecodeLimits) -> float:
    """Return what decoding `data` takes of one core; 0 where its header cannot be read.

    Also 0 for a picture over the limit of pixels, which is refused before it is decoded.
    """
    kind = sniff(data)
    if kind in RAW_KINDS:
        return len(data) / 1e6 * _RAW_SECONDS
    header = read_header(data, kind, glance=True)
    if kind is None or header is None or header.megapixels * 1e6 > limits.max_pixels:
        return 0.0
    return header.megapixels * _seconds_a_megapixel(kind, header, limits.max_scans)


def is_costly_for_its_size(seconds: float, byte_length: int) -> bool:
    """Whether decoding takes over a second, and over a second a megabyte."""
    return seconds > 1 + byte_length / 1e6


def _seconds_a_megapixel(kind: str, header: Header, max_scans: int) -> float:
    of_scans = _SCAN_SECONDS * min(header.scans, max_scans)
    if header.is_arithmetic:
        return _ARITHMETIC_SECONDS + of_scans
    if header.is_progressive:
        return _PROGRESSIVE_SECONDS + of_scans
    return _LOSSLESS_SECONDS if header.is_lossless else _SECONDS[kind]
