"""Makes Pillow read some files as browsers do, and refuses files that it reads wrongly."""

import io
from typing import Final

import numpy as np
from PIL import Image

from consumer.errors import Failed
from consumer.images.decoding.headers import has_its_end, tiff_sample_format
from schemas import Code

_END: Final = b"\xff\xd9"
# Bits that decode in any table; where they change no pixel, no row was missing.
_NOISE: Final = b"\x5a\x3c\x99\x17\x6e" * 4096
_MAX_MISSING: Final = 0.01  # of the rows
_VP8X_FLAGS: Final = 20  # offset in a WebP
_MAX_HEAD_BYTES: Final = 65_536
_ANIMATED: Final = 0x02
_ALPHA: Final = 0x10
_COMPRESSION: Final = 259
_WEBP: Final = 50001
_COLOUR_MAP: Final = 320  # tags of TIFF 6.0
_PLANAR: Final = 284
_BITS: Final = 258


def with_its_end(data: bytes, edge: int) -> bytes:
    """Return a JPEG that has its end marker, if at most a hundredth of its rows is missing.

    Browsers show such a file; Pillow takes none without the marker. Rows that are missing are told
    by what other bytes in their place would change. One that lacks more comes back as it is.
    """
    if has_its_end(data):
        return data
    rows = _rows(data + _END, edge)
    others = _rows(data + _NOISE + _END, edge)
    if rows is None or others is None:
        return data
    changed = np.flatnonzero((rows != others).reshape(len(rows), -1).any(axis=1))
    missing = len(rows) - changed[0] if changed.size else 0
    return data + _END if missing <= len(rows) * _MAX_MISSING else data


def _rows(data: bytes, edge: int) -> np.ndarray | None:
    """Return the pixels of a JPEG at a reduced size, rows first; None where there are none."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            opened.draft(None, (edge, edge))
            return np.asarray(opened)
    except (OSError, SyntaxError, ValueError):
        return None


def with_clear_canvas(data: bytes) -> bytes:
    """Return an animated WebP that says it has alpha: what no frame covers is clear, not black.

    The flag of the file says whether any frame has alpha; the canvas is transparent in any case.
    """
    if data[12:16] != b"VP8X" or len(data) <= _VP8X_FLAGS:
        return data
    flags = data[_VP8X_FLAGS]
    frame = data.find(b"ANMF", _VP8X_FLAGS, _VP8X_FLAGS + _MAX_HEAD_BYTES)
    if not flags & _ANIMATED or flags & _ALPHA or frame < 0:
        return data
    if data[frame + 14 : frame + 20] == data[_VP8X_FLAGS + 4 : _VP8X_FLAGS + 10]:
        return data  # as wide and as high as the canvas
    return data[:_VP8X_FLAGS] + bytes([flags | _ALPHA]) + data[_VP8X_FLAGS + 1 :]


def white_outside(image: Image.Image, frame: tuple[int, int, int, int] | None) -> Image.Image:
    """Return the image with white around `frame` (left, top, right, bottom): a GIF's first one.

    Outside it Pillow shows the first colour of the palette, which is mostly black.
    """
    if frame is None or frame == (0, 0, *image.size):
        return image
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(image.crop(frame), frame[:2])
    return canvas


def refuse_misread(opened: Image.Image) -> None:
    """Refuse the TIFFs that Pillow reads without an error, and wrongly.

    Raises:
        Failed: `unsupported_format`.
    """
    tags = getattr(opened, "tag_v2", None)
    if opened.format != "TIFF" or tags is None:
        return
    if tags.get(_COMPRESSION) == _WEBP:  # that of the wheels has libtiff without it
        raise Failed(Code.UNSUPPORTED_FORMAT, "a TIFF compressed as WebP")
    colours = tags.get(_COLOUR_MAP)
    if colours and 0 < max(colours) < 256:  # Pillow takes the high byte of 16 bits: black
        raise Failed(Code.UNSUPPORTED_FORMAT, "a TIFF with a colour map of 8 bits")
    bits = tags.get(_BITS, (1,))
    if tags.get(_PLANAR) == 2 and len(bits) > 1 and max(bits) > 8:
        raise Failed(Code.UNSUPPORTED_FORMAT, "a TIFF of 16 bits in separate planes")


def refuse_unread_tiff(data: bytes) -> None:
    """Refuse a TIFF that Pillow cannot open for what its samples are: it is not broken.

    Raises:
        Failed: `unsupported_format`.
    """
    samples = {2: "signed numbers", 3: "floats"}.get(tiff_sample_format(data))
    if samples:
        raise Failed(Code.UNSUPPORTED_FORMAT, f"a TIFF of {samples}")
