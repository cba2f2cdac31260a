"""Decode hostile bytes with Pillow, within limits, to the pixels the models take.

The format is judged by its first bytes and only that format's parser is tried. Size, sides and
shape are checked after the header is read and before a pixel is decoded.
Colour profiles are ignored, as the models' own processors ignore them: an embedding is compared
with embeddings that others made of the same file. Metadata is dropped.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from consumer.errors import Failed
from consumer.images.decoding.headers import Header, read_header, too_many_scans
from consumer.images.decoding.limits import RAW_KINDS, DecodeLimits
from consumer.images.decoding.magic import sniff
from consumer.images.decoding.pillow import prepare
from consumer.images.decoding.repair import (
    refuse_misread,
    refuse_unread_tiff,
    white_outside,
    with_clear_canvas,
    with_its_end,
)
from consumer.pixels import DecodedImage, Pixels, Resize
from schemas import Code, Task

__all__ = ["decode", "prepare"]

_PILLOW_NAMES: Final = {"HEIC": "HEIF"}  # where Pillow names a format otherwise
_Box = tuple[float, float, float, float]  # left, top, right, bottom
# An upright image, maybe reduced; the size of the whole one; and which part of it is the picture.
_Upright = tuple[Image.Image, tuple[int, int], _Box]

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
_NO_MEMORY: Final = (
    "decoder error -9",
    "Out of memory",
)  # in the words of libtiff's codec and libavif
# What Pillow's parsers raise on broken data. Warnings only come as exceptions where the process
# runs with -W error.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Warning,
)


def decode(data: bytes, targets: Mapping[Task, Resize], limits: DecodeLimits) -> DecodedImage:
    """Decode the first frame, upright, on white, and resize it for each target.

    Returns size and format of the whole image, and for each target an RGB array of uint8, shape
    (height, width, 3), that owns its memory.

    Raises:
        Failed: `not_an_image`, `unsupported_format`, `too_many_pixels`, `corrupt_image`, or
            `decoder_crashed` when memory runs out.
    """
    kind = sniff(data)
    if kind is None:
        raise Failed(Code.NOT_AN_IMAGE, "its first bytes are not those of an image")
    if not limits.allows(kind):
        listed = ", ".join(limits.formats)
        raise Failed(Code.UNSUPPORTED_FORMAT, f"{kind} is not decoded; {listed} are")
    edges = [
        max(to.height, to.width, to.shortest_edge, to.scaled_height, to.scaled_width)
        for to in targets.values()
    ]
    edge = _DRAFT_MARGIN * max(edges, default=1)
    with _translated(kind):
        opened = _developed if kind in RAW_KINDS else _opened
        image, size, box = opened(data, kind, edge, limits)
        pixels = {task: _resized(image, size, box, to) for task, to in targets.items()}
    return DecodedImage(width=size[0], height=size[1], format=kind, pixels=pixels)


def _opened(data: bytes, kind: str, edge: int, limits: DecodeLimits) -> _Upright:
    header = read_header(data, kind)
    if header is not None and header.megapixels:  # before the parser, which may begin to allocate
        _check_size(header.width, header.height, kind, limits, header)
    if kind == "JPEG":
        if (header is None or header.scans > limits.max_scans) and too_many_scans(
            data, limits.max_scans
        ):
            raise Failed(Code.UNSUPPORTED_FORMAT, f"a JPEG of more than {limits.max_scans} scans")
        data = with_its_end(data, edge)
    elif kind == "WEBP":
        data = with_clear_canvas(data)
    parser = _PILLOW_NAMES.get(kind, kind)
    try:
        unread = Image.open(io.BytesIO(data), formats=(parser,))
    except UnidentifiedImageError:
        if kind == "TIFF":
            refuse_unread_tiff(data)
        raise
    with unread as opened:
        width, height = opened.size
        _check_size(width, height, kind, limits, header)
        refuse_misread(opened)
        # libjpeg decodes at 1/2, 1/4 or 1/8 where that leaves enough; others ignore it. The box is
        # the part of the reduced image that is the picture: its sides are rounded up.
        is_reducible = header is None or not header.is_lossless
        drafted = opened.draft(None, (edge, edge)) if is_reducible else None
        box: _Box = drafted[1] if drafted else (0, 0, *opened.size)
        frame = opened.tile[0].extents if kind == "GIF" and opened.tile else None
        opened.load()  # a truncated file fails here, not in the batch
        orientation = _orientation(opened)
        size = (height, width) if orientation in _TURNED else (width, height)
        image, box = _upright(white_outside(_on_white(opened), frame), orientation, box)
    return image, size, box


def _developed(data: bytes, kind: str, edge: int, limits: DecodeLimits) -> _Upright:
    from consumer.images.decoding.raw import develop  # an extra

    pixels, size = develop(
        data, edge, lambda width, height: _check_size(width, height, kind, limits, None)
    )
    image = Image.fromarray(pixels)
    return image, size, (0, 0, *image.size)


@contextmanager
def _translated(kind: str) -> Iterator[None]:
    """Translate Pillow's errors, here and nowhere else."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise Failed(
            Code.TOO_MANY_PIXELS, f"a frame of this {kind} is far over MAX_IMAGE_PIXELS"
        ) from exc
    except UnidentifiedImageError as exc:  # its text is the address of a buffer
        raise Failed(Code.CORRUPT_IMAGE, f"broken {kind}: its header cannot be read") from exc
    except MemoryError as exc:  # not `corrupt_image`: the image may be sound
        raise Failed(Code.DECODER_CRASHED, f"no memory to decode this {kind}") from exc
    except _BROKEN as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise  # of the system, not of these bytes: a bug of ours
        if str(exc).endswith(_NO_MEMORY):
            raise Failed(Code.DECODER_CRASHED, f"no memory to decode this {kind}") from exc
        reason = "".join(char for char in str(exc)[:100] if char.isprintable())
        if reason.lower().startswith("unsupported"):  # sound, and Pillow has no parser for it
            raise Failed(Code.UNSUPPORTED_FORMAT, f"{kind}: {reason}") from exc
        raise Failed(Code.CORRUPT_IMAGE, f"broken {kind}: {reason}") from exc


def _check_size(
    width: int, height: int, kind: str, limits: DecodeLimits, header: Header | None
) -> None:
    short, long = sorted((width, height))
    size = f"{width} x {height}"
    is_whole = header is not None and (header.is_progressive or header.is_lossless)
    most = limits.pixels(kind, is_whole=is_whole)
    if width * height > most:
        setting = "MAX_IMAGE_PIXELS"
        if most < limits.max_pixels:
            setting = f"DECODE_MEMORY_BYTES, as {'whole ' * is_whole}{kind}"
        raise Failed(
            Code.TOO_MANY_PIXELS,
            f"{size} = {width * height / 1e6:.4g} megapixels; at most {most / 1e6:.4g} ({setting})",
        )
    if long > limits.max_side:
        raise Failed(
            Code.TOO_MANY_PIXELS, f"{size} pixels, a side over the limit of {limits.max_side}"
        )
    if short < _MIN_SIDE:  # well-formed, so not corrupt
        raise Failed(Code.UNSUPPORTED_FORMAT, f"{size} pixels, a side below {_MIN_SIDE}")
    if long > short * limits.max_aspect_ratio:
        raise Failed(
            Code.TOO_MANY_PIXELS,
            f"{size} pixels, longer than {limits.max_aspect_ratio} times its short side",
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except _BROKEN:  # broken metadata does not make a sound picture worthless
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB on white."""
    if image.mode.startswith("I;16"):
        # convert() would clip at 255. The high byte is what Pillow takes of 16-bit colour.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise Failed(Code.UNSUPPORTED_FORMAT, "pixels of 32 bits have no defined white")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba)
        return white
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
    """Return the same pixels as the model's own processor.

    The geometry follows from `full_size` (width, height): `image` may be a reduced decode, of
    which `box` is the picture.
    """
    width, height = to.width, to.height
    if to.crop and not to.shortest_edge:
        width, height = to.scaled_width, to.scaled_height
    elif to.crop:
        # The short edge comes out exact; the long one is cut, not rounded.
        short = min(full_size)
        width, height = (int(to.shortest_edge * side / short) for side in full_size)
    resized = image.resize((width, height), to.resample, box)
    left, top = (width - to.width) // 2, (height - to.height) // 2
    # Where the crop is larger than the image, Pillow pads with black, as the processors do.
    return np.array(resized.crop((left, top, left + to.width, top + to.height)))
