"""Files that a careful decoder refuses: none of them is an image it should try to keep."""

import io
import random
import struct
import zlib
from pathlib import Path

from examples.models.drawings import Thing, render, single
from examples.pictures.encodings import png

BOMB_SIDE = 30_000
PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The image you asked for has moved.</p></body></html>
"""


def write_hostile(folder: Path) -> None:
    """Write all of them."""
    picture = _picture("JPEG")
    files = {
        "truncated.jpg": picture[: len(picture) // 2],
        "not-a-picture.jpg": b"This is a text file. Only its name says that it is a picture.\n",
        "empty.jpg": b"",
        "html-page.png": PAGE,
        "damaged.png": _damaged(_picture("PNG")),
        "decompression-bomb-30000x30000.png": _bomb(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _picture(image_format: str) -> bytes:
    rng = random.Random("hostile")
    scene = single(rng, "large", Thing(colour="red", shape="star"), "white")
    buffer = io.BytesIO()
    render(scene, rng, width=320, height=320, noise_sigma=3.0).save(buffer, image_format)
    return buffer.getvalue()


def _damaged(content: bytes) -> bytes:
    """Break the second block of pixels, and end the file soon after it.

    The header is whole, so the file opens; Pillow then stops with a SyntaxError, which is no
    OSError: the case a decoder forgets.
    """
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    return content[:second] + b"\0\0\0\0" + content[second + 4 : second + 64]


def _bomb() -> bytes:
    """Return a valid PNG of about 100 kB whose 900 million black pixels take gigabytes as RGB."""
    compressor = zlib.compressobj(9)
    row = b"\0" * (1 + BOMB_SIDE // 8)
    data = b"".join(compressor.compress(row) for _ in range(BOMB_SIDE)) + compressor.flush()
    # One bit a pixel, grayscale.
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0)
    return png(header, data)
