"""Decode hostile bytes with Pillow, within limits, to the pixels the models take. Pure.

The format is judged by its first bytes and only that format's parser is tried. Size, sides and
shape are checked after the header is read and before a pixel is decoded.
Colour profiles are ignored, as the models' own processors ignore them; metadata is dropped.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from consumer.decoding.magic import sniff
from consumer.pixels import DecodedImage, Pixels, Resize
from consumer.verdicts import Failed
from schemas import Code, Task

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_Box = tuple[float, float, float, float]  # left, top, right, bottom

_MIN_SIDE: Final = 3  # below that there is nothing to see, and channel guessing goes wrong
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED: Final = frozenset({5, 6, 7, 8})  # width and height change places
_MIRRORED_X: Final = frozenset({2, 3, 6, 7})  # what was at the left or top comes to the right
_MIRRORED_Y: Final = frozenset({3, 4, 7, 8})
# With twice the target left after the reduced JPEG decode, pixels change by 0.2 of 255 on average,
# and a photo of 12 megapixels is ready six times as fast.
_DRAFT_MARGIN: Final = 2
# What Pillow's parsers raise on broken data. Warnings only come as exceptions where the process
# runs with -W error.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Warning,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What a header may announce. A side is in pixels; the aspect ratio is long by short side."""

    max_pixels: int = 50_000_000
    max_side: int = 30_000
    max_aspect_ratio: int = 100  # the shortest-edge resize makes that many times 224 x 224 pixels
    allow_tiff: bool = False


def decode(data: bytes, targets: Mapping[Task, Resize], limits: DecodeLimits) -> DecodedImage:
    """Decode the first frame, upright, on white, and resize it for each target.

    Returns size and format of the whole image, and for each target an RGB array of uint8, shape
    (height, width, 3), that owns its memory.

    Raises:
        Failed: `not_an_image`, `unsupported_format`, `too_many_pixels`, `corrupt_image`, or
            `decoder_crashed` when memory runs out.
    """
    kind = _allowed_format(data, limits)
    with _translated(kind), Image.open(io.BytesIO(data), formats=(kind,)) as opened:
        width, height = opened.size
        _check_size(width, height, limits)
        box = _shrink_on_load(opened, targets)
        opened.load()  # a truncated file fails here, not in the batch
        orientation = _orientation(opened)
        size = (height, width) if orientation in _TURNED else (width, height)
        image, box = _upright(_on_white(opened), orientation, box)
        pixels = {task: _resized(image, size, box, to) for task, to in targets.items()}
    return DecodedImage(width=size[0], height=size[1], format=kind, pixels=pixels)


def _allowed_format(data: bytes, limits: DecodeLimits) -> str:
    kind = sniff(data)
    if kind is None:
        raise Failed(Code.NOT_AN_IMAGE, "its first bytes are not those of an image")
    if kind not in _FORMATS and not (kind == "TIFF" and limits.allow_tiff):
        raise Failed(Code.UNSUPPORTED_FORMAT, f"{kind} is not decoded; {', '.join(_FORMATS)} are")
    return kind


@contextmanager
def _translated(kind: str) -> Iterator[None]:
    """Translate what Pillow raises; the one place where that is done."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise Failed(Code.TOO_MANY_PIXELS, f"{kind} far over the limit of pixels") from exc
    except UnidentifiedImageError as exc:  # its text is the address of a buffer
        raise Failed(Code.CORRUPT_IMAGE, f"broken {kind}: its header cannot be read") from exc
    except MemoryError as exc:  # the image may be sound, so it is not called corrupt
        raise Failed(Code.DECODER_CRASHED, f"no memory to decode this {kind}") from exc
    except _BROKEN as exc:
        reason = "".join(char for char in str(exc)[:100] if char.isprintable())
        raise Failed(Code.CORRUPT_IMAGE, f"broken {kind}: {reason}") from exc


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    short, long = sorted((width, height))
    size = f"{width} x {height} pixels"
    if width * height > limits.max_pixels:
        raise Failed(Code.TOO_MANY_PIXELS, f"{size}, over the limit of {limits.max_pixels}")
    if long > limits.max_side:
        raise Failed(Code.TOO_MANY_PIXELS, f"{size}, a side over the limit of {limits.max_side}")
    if short < _MIN_SIDE:  # well-formed, so not corrupt
        raise Failed(Code.UNSUPPORTED_FORMAT, f"{size}, a side below {_MIN_SIDE}")
    if long > short * limits.max_aspect_ratio:
        raise Failed(
            Code.TOO_MANY_PIXELS,
            f"{size}, longer than {limits.max_aspect_ratio} times its short side",
        )


def _shrink_on_load(image: Image.Image, targets: Mapping[Task, Resize]) -> _Box:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that leaves enough; others ignore it.

    Returns the part of the reduced image that is the picture: its sides are rounded up.
    """
    edges = [max(to.height, to.width, to.shortest_edge) for to in targets.values()]
    edge = _DRAFT_MARGIN * max(edges, default=1)
    drafted = image.draft(None, (edge, edge))
    return drafted[1] if drafted else (0, 0, *image.size)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except _BROKEN:  # broken metadata does not make a sound picture worthless
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB, what is transparent in it white."""
    if image.mode.startswith("I;16"):
        # convert() would clip at 255. The high byte is what Pillow takes of 16-bit colour.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise Failed(Code.UNSUPPORTED_FORMAT, "pixels of 32 bits have no defined white")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image, orientation: int, box: _Box) -> tuple[Image.Image, _Box]:
    """Turn the image and the part of it that is the picture."""
    if orientation not in _UPRIGHT:
        return image, box
    # Before the resize, not after: which axis is resized first shows by some grey levels.
    image = image.transpose(_UPRIGHT[orientation])
    width, height = box[2:]
    if orientation in _TURNED:
        width, height = height, width
    left = image.width - width if orientation in _MIRRORED_X else 0
    top = image.height - height if orientation in _MIRRORED_Y else 0
    return image, (left, top, left + width, top + height)


def _resized(image: Image.Image, full_size: tuple[int, int], box: _Box, to: Resize) -> Pixels:
    """Return the pixels as the model's own processor would make them.

    The geometry follows from `full_size` (width, height): `image` may be a reduced decode, of
    which `box` is the picture.
    """
    width, height = to.width, to.height
    if to.crop:
        # The short edge comes out exact; the long one is cut, not rounded.
        short = min(full_size)
        width, height = (int(to.shortest_edge * side / short) for side in full_size)
    resized = image.resize((width, height), to.resample, box)
    left, top = (width - to.width) // 2, (height - to.height) // 2
    # Where the crop is larger than the image, Pillow pads with black, as the processors do.
    return np.array(resized.crop((left, top, left + to.width, top + to.height)))
