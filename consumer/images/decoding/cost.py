"""How long a picture will take to decode, by its header. Pure; wrong at worst, never an error.

Seconds of CPU on one core of the machine that the project was measured on, with Pillow 13. They
decide what waits behind what, never what a picture is: one that takes longer than its header says
loses its process (`lanes`).
"""

import re
import struct
from typing import Final

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
_SCAN_SECONDS: Final = 0.0005  # of each scan of a progressive JPEG, a megapixel
_ARITHMETIC_SECONDS: Final = 0.1
_RAW_SECONDS: Final = 0.1  # a megabyte
_MAX_SEGMENTS: Final = 500
_MAX_HEAD_BYTES: Final = 65_536
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC: Final = frozenset(range(0xC9, 0xD0))
_SOS: Final = b"\xff\xda"
# After entropy-coded data: a marker that is no stuffed byte, no restart and no filling.
_MARKER: Final = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a segment


def estimated_seconds(data: bytes, limits: DecodeLimits) -> float:
    """Return what decoding `data` takes of one core; 0 where its header cannot be read.

    And 0 for what is over the limit of pixels: that is refused before it is decoded.
    """
    kind = sniff(data)
    if kind in RAW_KINDS:
        return len(data) / 1e6 * _RAW_SECONDS
    try:
        if kind == "JPEG":
            width, height, seconds = _jpeg(data, limits.max_scans)
        elif kind in _SIZES:
            (width, height), seconds = _SIZES[kind](data), _SECONDS[kind]
        else:
            return 0.0
    except (struct.error, IndexError):
        return 0.0
    return width * height / 1e6 * seconds if width * height <= limits.max_pixels else 0.0


def is_costly_for_its_size(seconds: float, byte_length: int) -> bool:
    """Tell a picture that says little and computes long: over a second, and one a megabyte."""
    return seconds > 1 + byte_length / 1e6


def too_many_scans(data: bytes, max_scans: int) -> bool:
    """Tell whether a JPEG has more scans than `max_scans`, up to its end marker.

    Each scan may be some ten bytes and makes libjpeg walk through every block of the picture.
    """
    if data.count(_SOS) <= max_scans:  # at most; a thumbnail has some, and other pictures behind
        return False
    at, scans = 2, 0
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            return False
        scans += marker == 0xDA
        if scans > max_scans:
            return True
        if marker not in _NO_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return False


def _jpeg(data: bytes, max_scans: int) -> tuple[int, int, float]:
    """Return width, height and the seconds a megapixel."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            break
        marker, at = found[1][0], found.end()
        if marker in _FRAMES:
            height = int.from_bytes(data[at + 3 : at + 5], "big")
            width = int.from_bytes(data[at + 5 : at + 7], "big")
            scans = min(data.count(_SOS, at), max_scans)
            return width, height, _a_megapixel(marker, scans)
        if marker not in _NO_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return 0, 0, 0.0


def _a_megapixel(frame: int, scans: int) -> float:
    if frame in _ARITHMETIC:
        return _ARITHMETIC_SECONDS + _SCAN_SECONDS * scans
    if frame in _PROGRESSIVE:
        return _PROGRESSIVE_SECONDS + _SCAN_SECONDS * scans
    return _SECONDS["JPEG"]


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    if data[14] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return (
                int.from_bytes(data[24:27], "little") + 1,
                int.from_bytes(data[27:30], "little") + 1,
            )
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF


def _heif(data: bytes) -> tuple[int, int]:
    """Return the largest size of an image in it, from the boxes that say so."""
    sizes = [(0, 0)]
    for found in re.finditer(b"ispe", data[:_MAX_HEAD_BYTES]):
        width, height = struct.unpack_from(">II", data, found.end() + 4)
        sizes.append((width, height))
    return max(sizes, key=lambda size: size[0] * size[1])


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    sizes = {}
    for index in range(min(count, 256)):
        entry = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            (sizes[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return sizes.get(256, 0), sizes.get(257, 0)


_SIZES: Final = {
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "HEIC": _heif,
    "AVIF": _heif,
    "TIFF": _tiff,
}
