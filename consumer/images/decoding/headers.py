"""Reads size and kind of a picture from its header, before a parser sees the file. Pure."""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_MAX_SEGMENTS: Final = 500
_MAX_HEAD_BYTES: Final = 65_536
_GLANCE_BYTES: Final = 131_072
_MAX_TIFF_ENTRIES: Final = 256
# Frames of a JPEG, SOF0 to SOF15; three of these numbers are other segments.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_ARITHMETIC: Final = frozenset(range(0xC9, 0xD0))
_SOS: Final = b"\xff\xda"
_EOI: Final = 0xD9
# After entropy-coded data: a marker that is no stuffed byte, no restart and no filling.
_MARKER: Final = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts of a header. The last four are a JPEG's."""

    width: int
    height: int
    is_progressive: bool = False
    is_lossless: bool = False
    is_arithmetic: bool = False
    scans: int = 1  # at most so many: a thumbnail has some, and other pictures behind

    @property
    def megapixels(self) -> float:
        """Width times height, in millions."""
        return self.width * self.height / 1e6


def read_header(data: bytes, kind: str | None, *, glance: bool = False) -> Header | None:
    """Return what the header of `data` announces; None where it cannot be read, or `kind` has none.

    `kind` is as `magic.sniff` names it. With `glance` the scans of a progressive JPEG are counted
    in its first and last 128 KiB alone: all of a photo takes 1.5 ms a megabyte.
    """
    try:
        if kind == "JPEG":
            return _jpeg(data, glance=glance)
        if kind in _SIZES:
            width, height = _SIZES[kind](data)
            return Header(width=width, height=height)
    except (struct.error, IndexError):
        pass
    return None


def _most_scans(data: bytes, frame: int, at: int, *, glance: bool) -> int:
    """Return how many scans follow the frame at `at`, at most.

    Where the first scan of a sequential frame has all components, libjpeg reads no other.
    """
    if frame not in _PROGRESSIVE:
        scan = data.find(_SOS, at)
        if scan >= 0 and data[scan + 4 : scan + 5] == data[at + 7 : at + 8]:
            return 1
    if glance and len(data) - at > 2 * _GLANCE_BYTES:
        return data.count(_SOS, at, at + _GLANCE_BYTES) + data.count(
            _SOS, len(data) - _GLANCE_BYTES
        )
    return data.count(_SOS, at)


def too_many_scans(data: bytes, max_scans: int) -> bool:
    """Tell whether a JPEG has more scans than `max_scans`, up to its end marker.

    Each scan may be some ten bytes and makes libjpeg walk through every block of the picture.
    """
    if data.count(_SOS) <= max_scans:
        return False
    at, scans = 2, 0
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            return False
        scans += marker == _SOS[1]
        if scans > max_scans:
            return True
        at = _behind(data, marker, at)
    return False


def has_its_end(data: bytes) -> bool:
    """Tell whether there is an end marker behind the last scan of a JPEG."""
    end = bytes((0xFF, _EOI))
    return data.endswith(end) or data.rfind(end) > data.rfind(_SOS)


def _behind(data: bytes, marker: int, at: int) -> int:
    """Return where the segment of `marker` ends."""
    if marker in _NO_LENGTH:
        return at
    return at + max(2, int.from_bytes(data[at : at + 2], "big"))


def _jpeg(data: bytes, *, glance: bool) -> Header | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return None
        marker, at = found[1][0], found.end()
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return Header(
                width=width,
                height=height,
                is_progressive=marker in _PROGRESSIVE,
                is_lossless=marker in _LOSSLESS,
                is_arithmetic=marker in _ARITHMETIC,
                scans=_most_scans(data, marker, at, glance=glance),
            )
        at = _behind(data, marker, at)
    return None


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        return 0, 0
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            width, height = data[24:27], data[27:30]
            return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
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
    sizes = _tiff_shorts(data, (256, 257))
    return sizes.get(256, 0), sizes.get(257, 0)


def tiff_sample_format(data: bytes) -> int:
    """Return how a TIFF writes its samples: 1 whole numbers, 2 signed ones, 3 floats.

    That of the first channel, as its first directory says; 1 where it says nothing (or is BigTIFF).
    """
    if data[2:3] == b"+" or data[3:4] == b"+":
        return 1
    try:
        return _tiff_shorts(data, (339,)).get(339, 1)
    except struct.error:
        return 1


def _tiff_shorts(data: bytes, tags: tuple[int, ...]) -> dict[int, int]:
    """Return the first value of each of these tags that the first directory has."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    found = {}
    for index in range(min(count, _MAX_TIFF_ENTRIES)):
        entry = directory + 2 + 12 * index
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        if tag in tags:
            at = entry + 8
            if kind == 3 and length > 2:  # too long for the entry: it has the place
                (at,) = struct.unpack_from(order + "I", data, at)
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at)
    return found


_SIZES: Final[Mapping[str | None, Callable[[bytes], tuple[int, int]]]] = {
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "HEIC": _heif,
    "AVIF": _heif,
    "TIFF": _tiff,
}
