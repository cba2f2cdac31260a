"""Bombs and broken files, made here: what each of them is, and the code that it has to give."""

import io
import struct
import zlib
from collections.abc import Iterator
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


def samples() -> Iterator[Sample]:
    """Make what the formats allowed by default can send, for a limit of 4 megapixels.

    None takes a second to decode.
    """
    for name, data, code in (*_pngs(), *_jpegs(), *_gifs(), *_others(), *_polyglots()):
        yield Sample(name=name, data=data, code=code)


_Row = tuple[str, bytes, Code | None]
_SMALL = Image.new("RGB", (24, 16), (255, 0, 0))
_BOMB_BYTES = 100_000_000


def _pngs() -> Iterator[_Row]:
    zeros = zlib.compress(bytes(_BOMB_BYTES), 1)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + b"\xff\0\0" * 24 for _ in range(16))))
    yield "PNG of 2^31 x 1", png_header(2**31 - 1, 1), Code.TOO_MANY_PIXELS
    yield "PNG of 1 x 2^31", png_header(1, 2**31 - 1), Code.TOO_MANY_PIXELS
    yield "PNG of 2^32 x 2^32", png_header(2**32 - 1, 2**32 - 1), Code.TOO_MANY_PIXELS
    yield "PNG of 900 megapixels", png_header(30_000, 30_000), Code.TOO_MANY_PIXELS
    yield "PNG line", png_header(4000, 3), Code.TOO_MANY_PIXELS
    yield "PNG, deflate bomb for pixels", png(24, 16, chunk(b"IDAT", zeros)), None
    text = chunk(b"zTXt", b"k\0\0" + zeros)
    yield "PNG, zTXt bomb", png(24, 16, text, pixels), None
    profile = chunk(b"iCCP", b"k\0\0" + zeros)
    yield "PNG, iCCP bomb", png(24, 16, profile, pixels), None
    text = chunk(b"iTXt", b"k\0\1\0\0\0" + zeros)
    yield "PNG, iTXt bomb", png(24, 16, text, pixels), None
    texts = chunk(b"tEXt", b"k\0" + bytes(900_000)) * 80
    yield "PNG, texts without end", png(24, 16, texts, pixels), None
    yield "PNG, 100,000 chunks", png(24, 16, chunk(b"teSt", b"") * 100_000, pixels), None
    frames = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "APNG of 2^31 frames", png(24, 16, frames, pixels), None
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0))
    yield "APNG, frame beyond the picture", png(24, 16, frames, frame, pixels), Code.CORRUPT_IMAGE
    yield "PNG without pixels", png(24, 16), Code.CORRUPT_IMAGE
    yield "PNG of no such depth", png(24, 16, pixels, depth=3), Code.CORRUPT_IMAGE
    yield "PNG of other pixels", png(24, 16, pixels, colour=3), Code.CORRUPT_IMAGE


def _jpegs() -> Iterator[_Row]:
    data = encoded(_SMALL, "JPEG")
    frame = data.index(b"\xff\xc0") + 5
    huge = data[:frame] + b"\xff\xdc\xff\xdc" + data[frame + 4 :]
    yield "JPEG of 65,500 x 65,500", huge, Code.TOO_MANY_PIXELS
    large = data[:frame] + struct.pack(">HH", 1900, 2000) + data[frame + 4 :]
    yield "JPEG of more than it has", large, None
    yield "JPEG of 40,000 scans", endless_jpeg(), Code.UNSUPPORTED_FORMAT
    yield "JPEG, cut", data[: len(data) * 2 // 3], Code.CORRUPT_IMAGE
    yield "JPEG without tables", data[:2] + data[data.index(b"\xff\xc0") :], Code.CORRUPT_IMAGE
    loop = b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"
    yield "JPEG, EXIF that points to itself", encoded(_SMALL, "JPEG", exif=loop), None
    count = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\xff\xff\xff\xff\x08\0\0\0\0\0\0\0"
    yield "JPEG, EXIF of 2^32 orientations", encoded(_SMALL, "JPEG", exif=count), None
    segment = b"\xff\xe2" + struct.pack(">H", 65_535) + b"ICC_PROFILE\0\1\1" + bytes(65_519)
    yield "JPEG, 300 profiles", data[:2] + segment * 300 + data[2:], None
    yield "JPEG, a comment of nothing", data[:2] + b"\xff\xfe\0\0" + data[2:], None


def _gifs() -> Iterator[_Row]:
    data = encoded(_SMALL.quantize(4), "GIF")
    at = data.index(b"\x2c", 13)
    far = data[: at + 1] + struct.pack("<HHHH", 60_000, 60_000, 24, 16) + data[at + 9 :]
    yield "GIF, first frame beyond the screen", far, Code.TOO_MANY_PIXELS
    frame = data[at:-1]
    yield "GIF of 10,000 frames", data[:-1] + frame * 10_000 + b";", None
    yield "GIF of 0 x 0", data[:6] + bytes(4) + data[10:at] + data[at:], None
    yield "GIF, comments without end", data[:at] + (b"\x21\xfe\1a\0" * 100_000) + data[at:], None
    yield "GIF without a frame", data[:at] + b";", Code.CORRUPT_IMAGE


def _others() -> Iterator[_Row]:
    head = struct.pack("<IiiHHIIiiII", 40, 1900, 1900, 1, 8, 1, 2, 0, 0, 256, 0)
    run = b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + head + bytes(1024) + b"\xff\1\0\1"
    yield "BMP, run lengths that end early", run, Code.CORRUPT_IMAGE
    large = run.replace(struct.pack("<ii", 1900, 1900), struct.pack("<ii", 2**31 - 1, -(2**31)))
    yield "BMP of 2^31 x -2^31", large, Code.TOO_MANY_PIXELS
    far = run[:10] + struct.pack("<I", 2**32 - 1) + run[14:]
    yield "BMP, pixels beyond the end", far, Code.CORRUPT_IMAGE
    bomb = encoded(Image.new("RGB", (3000, 3000)), "WEBP", lossless=True, quality=0, method=0)
    yield "WebP of 9 megapixels in 34 bytes", bomb, Code.TOO_MANY_PIXELS
    frames = [Image.new("RGB", (1000, 1000), (shade, 0, 0)) for shade in range(50)]
    many = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "WebP of 50 frames", many, None
    sound = encoded(_SMALL, "WEBP")
    canvas = bytearray(
        encoded(_SMALL, "WEBP", save_all=True, append_images=[frames[0].resize((24, 16))])
    )
    canvas[24:30] = (12_000 - 1).to_bytes(3, "little") * 2
    yield "WebP, a canvas of 144 megapixels", bytes(canvas), Code.TOO_MANY_PIXELS
    liar = sound[:4] + b"\xff\xff\xff\xff" + sound[8:]
    yield "WebP that says it is 4 GB", liar, Code.CORRUPT_IMAGE
    yield "TIFF, a tile of 1.6 GB", tiff_with_one_tile(40_000), Code.UNSUPPORTED_FORMAT


def _polyglots() -> Iterator[_Row]:
    jpeg, gif = encoded(_SMALL, "JPEG"), encoded(_SMALL.quantize(4), "GIF")
    yield "JPEG with an archive behind it", jpeg + b"PK\3\4" + bytes(100), None
    yield "GIF that is a script", b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)", Code.TOO_MANY_PIXELS
    yield "PNG signature on a JPEG", b"\x89PNG\r\n\x1a\n" + jpeg, Code.CORRUPT_IMAGE
    script = b"%!PS-Adobe-3.0 EPSF\n" + jpeg
    yield "PostScript with a JPEG in it", script, Code.UNSUPPORTED_FORMAT
    yield "PDF", b"%PDF-1.7\n" + jpeg, Code.UNSUPPORTED_FORMAT
    yield "HTML", b"<html><img src=x onerror=alert(1)>", Code.NOT_AN_IMAGE
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", Code.UNSUPPORTED_FORMAT
    yield "nothing", b"", Code.NOT_AN_IMAGE
