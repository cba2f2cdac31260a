"""Write one picture in the many ways an image file can be written."""

import functools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

Writer = Callable[[Image.Image, Path], None]

ORIENTATION_TAG = 0x0112
# What is done to the pixels before they are stored, so that a reader who applies the orientation
# sees the picture as it was drawn.
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def plain(image: Image.Image, path: Path) -> None:
    """Write in the format of the name's ending, with Pillow's defaults."""
    image.save(path)


def poor_jpeg(image: Image.Image, path: Path) -> None:
    """Write a JPEG of quality 20, with blocks one can see."""
    image.save(path, quality=20)


def progressive_jpeg(image: Image.Image, path: Path) -> None:
    """Write a JPEG that comes in passes."""
    image.save(path, progressive=True)


def lossless_webp(image: Image.Image, path: Path) -> None:
    """Write WebP's lossless kind, which is another codec than the lossy one."""
    image.save(path, lossless=True)


def in_mode(mode: str) -> Writer:
    """Write the picture converted to one of Pillow's modes: L, LA, CMYK, 1 or P."""
    return functools.partial(_write_converted, mode)


def turned(orientation: int) -> Writer:
    """Write a JPEG whose pixels are turned or mirrored and whose EXIF says so."""
    return functools.partial(_write_turned, orientation)


def see_through(image: Image.Image, path: Path) -> None:
    """Write the picture with a transparent background.

    The colour under the transparency is white: composed on white or simply stripped of its alpha,
    the picture shows the same.
    """
    corner = Image.new("RGB", image.size, image.getpixel((0, 0)))
    difference = np.asarray(ImageChops.difference(image, corner)).max(axis=2)
    alpha = Image.fromarray(np.where(difference > 40, 255, 0).astype(np.uint8))
    on_white = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    on_white.putalpha(alpha)
    # Only WebP heeds these: without them it stores what it likes under the transparency.
    on_white.save(path, lossless=True, exact=True)


def sixteen_bit_gray_png(image: Image.Image, path: Path) -> None:
    """Write 16 bits a pixel, one channel."""
    gray = np.asarray(image.convert("L"), np.uint16) * 257
    Image.fromarray(gray).save(path)


def sixteen_bit_png(image: Image.Image, path: Path) -> None:
    """Write 16 bits a channel, three channels. By hand: Pillow reads such files, it writes none."""
    samples = (np.asarray(image, np.uint16) * 257).astype(">u2")
    # A zero byte before each row: no filter.
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    path.write_bytes(png(header, zlib.compress(rows, 9)))


def png(header: bytes, data: bytes) -> bytes:
    """Assemble a PNG from its header and its compressed rows."""
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _write_converted(mode: str, image: Image.Image, path: Path) -> None:
    if mode == "P":
        image.quantize(16).save(path)
    else:
        image.convert(mode).save(path)


def _write_turned(orientation: int, image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    image.transpose(STORED_AS[orientation]).save(path, exif=exif)
