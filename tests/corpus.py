"""Bombs and broken files, made here: what each of them is, and the code that it has to give."""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache

from PIL import Image

from schemas import Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file; `code` is None where it is a sound picture, strange as it looks."""

    name: str
    data: bytes
    code: Code | None


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG of these chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that announces a size and has no pixel."""
    return png(width, height, chunk(b"IDAT", zlib.compress(b"")))


@cache
def endless_jpeg(side: int = 1984, scans: int = 40_000) -> bytes:
    """Return a progressive JPEG of a few megapixels that says the same thing again and again.

    Each scan is some tens of bytes and makes libjpeg walk through all blocks of the picture.
    """
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def tiff_with_one_tile(side: int) -> bytes:
    """Return a TIFF of 64 x 64 pixels whose only tile is `side` x `side`, compressed."""
    tile = zlib.compress(bytes(64 * 64))
    entries = (
        (256, 4, 64),  # width
        (257, 4, 64),  # height
        (258, 3, 8),  # bits
        (259, 3, 8),  # deflate
        (262, 3, 1),  # black is zero
        (277, 3, 1),  # one sample
        (322, 4, side),  # tile width
        (323, 4, side),  # tile height
        (324, 4, 8),  # where it is
        (325, 4, len(tile)),
    )
    return tiff(entries, tile)


def tiff(entries: tuple[tuple[int, int, int], ...], data: bytes) -> bytes:
    """Return a little-endian TIFF: `data` at offset 8, then one directory of single values."""
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0\0\0\0"
