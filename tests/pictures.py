"""Small sound files of every format, in many of its ways and in every mode that it has."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.camera import dng

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_DEEP_MODES = ("I;16", "I;16B", "I", "F")
_KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
_COMPRESSIONS = (
    *("packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg", "lzma", "zstd"),
    *("group3", "group4", "tiff_ccitt", "tiff_raw_16", "webp"),
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawing() -> Image.Image:
    """Return a small picture of soft noise."""
    noise = np.random.default_rng(6).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((72, 54), Image.Resampling.BICUBIC)


def modes() -> Iterator[tuple[str, bytes]]:
    """Make a file of each format, mode and compression that Pillow can write, with its name."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    rgb = drawing()
    for mode in (*_MODES, *_DEEP_MODES):
        image = _in_mode(rgb, mode)
        for kind in _KINDS:
            yield from _saved(f"{kind} of {mode}", image, kind)
        for compression in _COMPRESSIONS:
            name = f"TIFF of {mode}, {compression}"
            yield from _saved(name, image, "TIFF", compression=compression)


def _in_mode(rgb: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":  # Pillow converts no other way than by profiles
        return Image.frombytes("LAB", rgb.size, rgb.tobytes())
    if mode in _DEEP_MODES:
        gray = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(gray)
        if mode == "I;16B":
            return Image.frombytes("I;16B", rgb.size, gray.astype(">u2").tobytes())
        return image if mode == "I;16" else Image.fromarray(gray.astype(np.int32)).convert(mode)
    return (rgb.convert("RGBA") if mode == "PA" else rgb).convert(mode)


def _saved(
    name: str, image: Image.Image, kind: str, **options: object
) -> Iterator[tuple[str, bytes]]:
    try:
        yield name, encoded(image, kind, **options)
    except (OSError, KeyError, ValueError, RuntimeError):  # no such mode in that format
        return


def seeds() -> list[bytes]:
    """Make small files of every format, in many of its ways."""
    rgb = drawing()
    rgba, gray, palette = rgb.convert("RGBA"), rgb.convert("L"), rgb.quantize(16)
    rgba.putalpha(gray)
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [rgb.transpose(Image.Transpose.ROTATE_180)]}
    made: list[tuple[Image.Image, str, dict[str, object]]] = [
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb, "JPEG", {"subsampling": 0, "restart_marker_blocks": 3, "icc_profile": b"x" * 99}),
        (gray, "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "MPO", more),
        (rgb, "PNG", {"exif": exif}),
        (rgba, "PNG", {}),
        (palette, "PNG", {"transparency": b"\0\x80"}),
        (gray.convert("I;16"), "PNG", {}),
        (rgb.convert("1"), "PNG", {}),
        (rgb, "PNG", more),
        (palette, "GIF", {}),
        (rgb, "GIF", more),
        (rgb, "WEBP", {"exif": exif}),
        (rgba, "WEBP", {"lossless": True}),
        (rgba, "WEBP", {}),
        (rgb, "WEBP", more),
        (rgb, "BMP", {}),
        (palette, "BMP", {}),
        (rgba, "BMP", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (gray, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (rgb, "TIFF", {}),
        (rgb, "AVIF", {}),
        (rgba, "AVIF", {}),
        (rgb, "AVIF", more),
    ]
    return [encoded(image, kind, **options) for image, kind, options in made]


def extras() -> list[bytes]:
    """Make small files of the formats of the extra `formats`."""
    rgb = drawing()
    rgba = rgb.convert("RGBA")
    rgba.putalpha(rgb.convert("L"))
    pytest.importorskip("pillow_heif").register_heif_opener()
    pytest.importorskip("rawpy")
    raws = [dng(np.asarray(rgb)), dng(np.asarray(rgb), orientation=6)]
    return [encoded(rgb, "HEIF"), encoded(rgba, "HEIF"), *raws]
