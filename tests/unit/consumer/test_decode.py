"""Decoding: every kind of picture comes out as RGB, and every kind of rubbish as one verdict."""

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from PIL.Image import Resampling, Transpose

from consumer.errors import Failed
from consumer.images.decoding.image import decode
from consumer.images.decoding.limits import DEFAULT_FORMATS, DecodeLimits, Format
from consumer.images.decoding.magic import sniff
from consumer.pixels import DecodedImage, Resize
from schemas import Code, Stage, Task
from tests.camera import dng
from tests.effort import effort

# As the consumer runs: see consumer/images/decoding/pool.py.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\..*")

LIMITS = DecodeLimits(max_pixels=1_000_000, max_side=2_000, max_aspect_ratio=20)
SQUASH = Resize(height=8, width=12, resample=Resampling.BICUBIC, crop=False)
CROP = Resize(height=8, width=8, resample=Resampling.BICUBIC, crop=True, shortest_edge=8)
SAME = Resize(height=16, width=24, resample=Resampling.NEAREST, crop=False)  # of a 24 x 16 image
BOTH = {Task.EMBED: CROP, Task.CAPTION: SQUASH}
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawing(width: int = 24, height: int = 16) -> Image.Image:
    """Return a picture that no turn or flip leaves as it is: red, with a blue upper left corner."""
    image = Image.new("RGB", (width, height), RED)
    image.paste((0, 0, 255), (0, 0, width // 2, height // 4))
    return image


def shown(data: bytes, to: Resize = SAME, limits: DecodeLimits = LIMITS) -> np.ndarray:
    """Return the pixels of one target."""
    return decode(data, {Task.EMBED: to}, limits).pixels[Task.EMBED]


def verdict(data: bytes, limits: DecodeLimits = LIMITS) -> Code:
    """Return the code with which `data` fails."""
    with pytest.raises(Failed) as caught:
        decode(data, BOTH, limits)
    return caught.value.code


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_each_format_is_decoded(kind: str) -> None:
    """Size and format are the image's, pixels those of each target, writable and compact."""
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = decode(encoded(drawing(), kind, **options), BOTH, LIMITS)
    assert (image.width, image.height, image.format) == (24, 16, kind)
    assert {task: pixels.shape for task, pixels in image.pixels.items()} == {
        Task.EMBED: (8, 8, 3),
        Task.CAPTION: (8, 12, 3),
    }
    for pixels in image.pixels.values():
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable
        np.testing.assert_allclose(pixels[-1, -1], RED, atol=4)


def test_only_the_targets_asked_for_are_made() -> None:
    """No task, no pixels; the size is told all the same."""
    image = decode(encoded(drawing()), {}, LIMITS)
    assert (image.width, image.height, image.pixels) == (24, 16, {})


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    """An image that was turned and says so comes out upright, whichever way and format."""
    undo = {
        1: None,
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_90,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_270,
    }[orientation]
    turned = drawing() if undo is None else drawing().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(turned, kind, exif=exif), {Task.EMBED: SAME}, LIMITS)
    assert (image.width, image.height) == (24, 16)
    change = np.abs(image.pixels[Task.EMBED] - np.asarray(drawing()).astype(int))
    assert change.mean() < 10  # 20 and more for any other orientation


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk" * 9])
def test_broken_exif_leaves_the_picture_as_it_is(exif: bytes) -> None:
    """Metadata that cannot be read does not cost a sound picture."""
    np.testing.assert_array_equal(shown(encoded(drawing(), exif=exif)), np.asarray(drawing()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_opaque_modes_become_rgb(mode: str) -> None:
    """Black and white stay black and white in every mode; CMYK as Pillow reads Adobe's files."""
    image = Image.new("RGB", (24, 16), WHITE)
    image.paste(BLACK, (0, 0, 12, 16))
    data = encoded(image.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    pixels = shown(data)
    np.testing.assert_allclose(pixels[8, 2], BLACK, atol=2)
    np.testing.assert_allclose(pixels[8, 22], WHITE, atol=2)


def _half_clear(mode: str) -> Image.Image:
    image = Image.new("RGBA", (24, 16), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 12, 16))
    return image.convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        encoded(_half_clear("RGBA")),
        encoded(_half_clear("LA")),
        encoded(_half_clear("RGBA"), "WEBP", lossless=True),
        encoded(_half_clear("RGBA"), "GIF"),
        encoded(_half_clear("RGBA").quantize(4)),
        encoded(drawing().convert("L"), transparency=drawing().convert("L").getpixel((0, 0))),
        encoded(drawing(), transparency=(0, 0, 255)),
    ],
    ids=["RGBA", "LA", "WEBP", "GIF", "palette", "gray key", "colour key"],
)
def test_what_is_transparent_is_white(data: bytes) -> None:
    """Alpha is composed on white, not dropped: what hides below it is not shown."""
    pixels = shown(data)
    np.testing.assert_array_equal(pixels[1, 1], WHITE)
    assert pixels[15, 23].tolist() != list(WHITE)


def test_half_transparent_is_half_white() -> None:
    """The alpha channel has all its levels."""
    np.testing.assert_allclose(
        shown(encoded(Image.new("RGBA", (24, 16), (255, 0, 0, 128))))[0, 0], (255, 127, 127), atol=1
    )


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    """A ramp over 65,536 levels stays a ramp over 256."""
    ramp = np.linspace(0, 65_535, 24, dtype=np.uint16)
    pixels = shown(encoded(Image.fromarray(np.tile(ramp, (16, 1)))))
    np.testing.assert_allclose(pixels[0, :, 0], ramp / 257, atol=1)
    assert (pixels[0, 0, 0], pixels[0, -1, 0]) == (0, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_is_used(kind: str) -> None:
    """The rest is never decoded."""
    frames = [Image.new("RGB", (24, 16), colour) for colour in (BLACK, WHITE)]
    image = decode(
        encoded(frames[1], kind, save_all=True, append_images=frames[:1]),
        {Task.EMBED: SAME},
        LIMITS,
    )
    assert (image.width, image.height) == (24, 16)
    np.testing.assert_allclose(image.pixels[Task.EMBED][8, 8], WHITE, atol=2)


def test_shortest_edge_and_crop_take_the_middle() -> None:
    """The sides of a wide image are cut off, the same on both."""
    image = Image.new("RGB", (30, 10), RED)
    image.paste(WHITE, (10, 0, 20, 10))
    to = Resize(height=10, width=10, resample=Resampling.BICUBIC, crop=True, shortest_edge=10)
    assert (shown(encoded(image), to) == 255).all()
    assert (shown(encoded(image.transpose(Transpose.ROTATE_90)), to) == 255).all()


def test_crop_larger_than_the_image_is_padded_with_black() -> None:
    """As the processors do: the image in the middle, zeros around it."""
    to = Resize(height=9, width=8, resample=Resampling.BICUBIC, crop=True, shortest_edge=4)
    pixels = shown(encoded(Image.new("RGB", (16, 16), WHITE)), to)
    assert (pixels[3:7, 2:6] == 255).all()
    assert pixels.sum() == 4 * 4 * 3 * 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_jpeg_decode_hardly_changes_pixels_and_not_the_size(orientation: int) -> None:
    """A large photo is decoded at a fraction; its size is told in full, its pixels stay close."""
    noise = np.random.default_rng(4).integers(0, 256, (12, 16, 3), np.uint8)
    photo = Image.fromarray(noise).resize((1201, 801), Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, "JPEG", quality=90, exif=exif)
    to = Resize(height=64, width=64, resample=Resampling.BICUBIC, crop=False)
    image = decode(data, {Task.EMBED: to}, LIMITS)
    assert (image.width, image.height) == ((1201, 801) if orientation < 5 else (801, 1201))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    full = np.asarray(upright.resize((64, 64), Resampling.BICUBIC))
    change = np.abs(image.pixels[Task.EMBED].astype(int) - full)
    assert 0 < change.mean() < 0.3  # above 0: it was reduced
    assert change.max() <= 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"just a text named cat.jpg",
        b"BMW builds cars, not images",
        b"<html>",
        b"<!DOCTYPE html><p>no picture",
        b"<?xml version='1.0'?><feed/>",
        b"RIFF\0\0\0\0WAVE",
        b"P",
        b"\xff\xd8",
    ],
)
def test_other_files_are_not_an_image(data: bytes) -> None:
    """Judged by the first bytes, not by a name or what a header says."""
    assert verdict(data) is Code.NOT_AN_IMAGE


@pytest.mark.parametrize(
    "data",
    [
        encoded(drawing(), "TIFF"),
        encoded(drawing(), "ICO"),
        encoded(drawing(), "PPM"),
        encoded(drawing(), "EPS"),
        encoded(drawing(), "DDS"),
        b"8BPS\0\1",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>",
        b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'><svg/>",
        b"%PDF-1.7",
        b"\0\0\0\x18ftypmp42",
        b"\0\0\0\x14ftypqt  ",
        b"\0\0\0\x08wide\0\0\0\0mdat",
        b"FUJIFILMCCD-RAW 0201",
        b"IIU\0\x18\0\0\0",
        b"IIRO\x08\0\0\0",
        b"FOVb\0\0\3\0",
        b"\0\0\0\x18ftypcrx ",
        b"\0\0\0\x0cJXL \r\n\x87\n",
    ],
    ids=[
        *("TIFF", "ICO", "PPM", "EPS", "DDS", "PSD", "HEIC", "AVIF", "JP2", "SVG", "SVG, XML"),
        *("SVG, type", "PDF", "MP4", "MOV", "MOV, old", "RAF", "RW2", "ORF", "X3F", "CR3", "JXL"),
    ],
)
def test_image_formats_off_the_list_are_unsupported(data: bytes) -> None:
    """They are named as images and no parser sees them."""
    assert verdict(data) is Code.UNSUPPORTED_FORMAT


def test_tiff_is_decoded_where_it_is_allowed() -> None:
    """A setting opens it; pixels without a defined range stay closed."""
    limits = DecodeLimits(formats=(*DEFAULT_FORMATS, Format.TIFF))
    assert decode(encoded(drawing(), "TIFF"), BOTH, limits).format == "TIFF"
    for mode in ("F", "I"):
        data = encoded(drawing().convert("L").convert(mode), "TIFF")
        assert verdict(data, limits) is Code.UNSUPPORTED_FORMAT


def test_avif_is_decoded_where_it_is_allowed() -> None:
    """Pillow brings its parser along."""
    image = decode(encoded(drawing(), "AVIF"), BOTH, DecodeLimits(formats=(Format.AVIF,)))
    assert (image.width, image.height, image.format) == (24, 16, "AVIF")


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_decoded_where_it_is_allowed(orientation: int) -> None:
    """With the extra `formats`; upright, as a phone held sideways writes it."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    limits = DecodeLimits(formats=(Format.HEIC,))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(drawing(240, 160), "HEIF", quality=95, exif=exif.tobytes())
    image = decode(data, {Task.EMBED: SAME}, limits)
    assert (image.width, image.height) == ((240, 160) if orientation == 1 else (160, 240))
    assert image.format == "HEIC"
    corner = image.pixels[Task.EMBED][1, 2 if orientation == 1 else 21]
    np.testing.assert_allclose(corner, (0, 0, 255), atol=20)


@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (64, 48), (1, 1)), (3, (64, 48), (6, 6)), (6, (48, 64), (1, 6)), (8, (48, 64), (6, 1))],
)
@pytest.mark.parametrize("scale", [1, 4])
def test_raw_file_of_a_camera_is_developed(
    orientation: int, size: tuple[int, int], corner: tuple[int, int], scale: int
) -> None:
    """A DNG, upright and in its full size, developed at half of it where that is enough."""
    pytest.importorskip("rawpy")
    picture = np.asarray(drawing(64 * scale, 48 * scale))
    to = Resize(height=8, width=8, resample=Resampling.BOX, crop=False)
    limits = DecodeLimits(formats=(Format.RAW,))
    image = decode(dng(picture, orientation), {Task.EMBED: to}, limits)
    assert (image.width, image.height) == (size[0] * scale, size[1] * scale)
    assert image.format == "DNG"
    pixels = image.pixels[Task.EMBED]
    assert pixels[4, 4].argmax() == 0  # red
    assert pixels[corner].argmax() == 2  # blue


def test_raw_file_is_held_to_the_limits() -> None:
    """Before a pixel of it is read; cut, it is corrupt; not listed, no parser sees it."""
    pytest.importorskip("rawpy")
    data = dng(np.asarray(drawing(64, 48)))
    limits = DecodeLimits(formats=(Format.RAW,), max_pixels=64 * 47)
    assert verdict(data, limits) is Code.TOO_MANY_PIXELS
    assert verdict(data[:-1000], DecodeLimits(formats=(Format.RAW,))) is Code.CORRUPT_IMAGE
    assert verdict(data, DecodeLimits(formats=(Format.TIFF,))) is Code.UNSUPPORTED_FORMAT


def test_colour_profile_is_not_applied() -> None:
    """As in the models' own processors: an embedding is that of the numbers in the file."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = encoded(drawing(), icc_profile=profile)
    np.testing.assert_array_equal(shown(data), np.asarray(drawing()))


def _tiff_directory(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """Return the beginning of a TIFF: what a camera's file has in its first directory."""
    rows = b"".join(struct.pack(order + "HHI4s", *entry) for entry in entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IH", 8, len(entries)) + rows + b"\0\0\0\0SONY\0NIKON\0"


@pytest.mark.parametrize("order", ["<", ">"])
def test_raw_files_are_told_from_tiffs(order: str) -> None:
    """By what their first directory says; a scan that a camera's maker wrote stays a TIFF."""

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    preview, whole = (254, 4, 1, long(1)), (254, 4, 1, long(0))
    others = (330, 4, 1, long(9))
    sony, nikon = (271, 2, 5, long(50)), (271, 2, 6, long(55))
    dng_version = (50706, 1, 4, b"\1\4\0\0")
    kinds = {
        "ARW": (preview, sony, others),
        "NEF": (preview, nikon, others),
        "DNG": (preview, dng_version, whole),
    }
    for kind, entries in kinds.items():
        assert sniff(_tiff_directory(*entries, order=order)) == kind
    for entries in ((whole, sony, others), (preview, sony, whole), (preview, others, whole)):
        assert sniff(_tiff_directory(*entries, order=order)) == "TIFF"
    assert sniff(b"II*\0\x10\0\0\0CR\2\0") == "CR2"


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        (b"heic\0\0\0\0mif1", "HEIC"),
        (b"mif1\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"avif\0\0\0\0heic", "AVIF"),
        (b"mif1\0\0\0\0xxxx", "HEIF"),
        (b"mp42\0\0\0\0mp41", "MP4"),
    ],
)
def test_brands_tell_heic_from_avif(brands: bytes, kind: str | None) -> None:
    """The major brand first; where that is a general one, the others."""
    assert sniff(struct.pack(">I", len(brands) + 8) + b"ftyp" + brands + b"heicheic") == kind


def _png_header(width: int, height: int) -> bytes:
    """Return a PNG that announces a size and has no pixel."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1001, 1000),
        (12_000, 12_000),
        (20_000, 20_000),
        (2**31 - 1, 2**31 - 1),
        (2001, 101),
        (1001, 50),
    ],
    ids=["over", "Pillow warns", "Pillow refuses", "2^31", "side", "aspect ratio"],
)
def test_header_over_a_limit_is_refused_before_a_pixel_is_decoded(width: int, height: int) -> None:
    """The file has no pixels, so the header alone was judged."""
    assert verdict(_png_header(width, height)) is Code.TOO_MANY_PIXELS
    assert verdict(_png_header(height, width)) is Code.TOO_MANY_PIXELS


@pytest.mark.filterwarnings("error")
def test_bomb_is_refused_where_warnings_are_errors() -> None:
    """Pillow's own warning, raised, gives the same verdict."""
    assert verdict(_png_header(12_000, 12_000)) is Code.TOO_MANY_PIXELS


def test_limits_hold_to_the_pixel() -> None:
    """Exactly as much as allowed is decoded."""
    limits = DecodeLimits(max_pixels=40 * 4, max_side=40, max_aspect_ratio=10)
    assert decode(encoded(drawing(40, 4)), BOTH, limits).width == 40


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (2, 30), (30, 2)])
def test_speck_is_unsupported(width: int, height: int) -> None:
    """A tracking pixel is a sound image with nothing in it."""
    assert verdict(encoded(drawing(width, height))) is Code.UNSUPPORTED_FORMAT


def test_image_without_pixels_is_corrupt() -> None:
    """A side of 0 is not a size."""
    assert verdict(_png_header(0, 5)) is Code.CORRUPT_IMAGE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_file_is_corrupt(kind: str, share: float) -> None:
    """Half a picture is no picture, wherever it ends."""
    noise = np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert verdict(data[: int(len(data) * share)]) is Code.CORRUPT_IMAGE


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"BM" + b"\0" * 12 + b"\x28\0\0\0",
    ],
    ids=["JPEG", "PNG", "GIF", "WEBP", "BMP"],
)
def test_bare_beginning_is_corrupt(data: bytes) -> None:
    """The first bytes are right and nothing follows; the message names no buffer."""
    with pytest.raises(Failed) as caught:
        decode(data, BOTH, LIMITS)
    assert caught.value.code is Code.CORRUPT_IMAGE
    assert "0x" not in caught.value.message


def test_compressed_text_bomb_is_left_out() -> None:
    """A PNG comment that unpacks to 100 MB is stopped at 1 MiB; the picture is sound."""
    text = b"zTXt" + b"k\0\0" + zlib.compress(bytes(100_000_000), 1)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    data = encoded(drawing())
    np.testing.assert_array_equal(shown(data[:33] + chunk + data[33:]), np.asarray(drawing()))


def _outcome(data: bytes, targets: Mapping[Task, Resize] = BOTH) -> DecodedImage | Code:
    try:
        return decode(data, targets, LIMITS)
    except Failed as failed:
        return failed.code


def _is_an_outcome(outcome: DecodedImage | Code) -> bool:
    if isinstance(outcome, DecodedImage):
        return outcome.pixels[Task.EMBED].shape == (8, 8, 3)
    return outcome.stage is Stage.DECODE


PREFIXES = (
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBP",
    b"BM",
    b"II*\0",
)
SEEDS = tuple(
    encoded(image, kind, **options)
    for image, kind, options in (
        (drawing(), "JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0"}),
        (drawing(), "JPEG", {"progressive": True}),
        (drawing().convert("CMYK"), "JPEG", {}),
        (drawing(), "PNG", {}),
        (drawing().quantize(4), "PNG", {"transparency": b"\0\x80"}),
        (_half_clear("RGBA"), "PNG", {}),
        (drawing(), "GIF", {"save_all": True, "append_images": [Image.new("RGB", (24, 16))]}),
        (drawing(), "WEBP", {}),
        (_half_clear("RGBA"), "WEBP", {"lossless": True}),
        (drawing(), "BMP", {}),
        (drawing().convert("P"), "BMP", {}),
    )
)


@given(st.sampled_from(PREFIXES), st.binary(max_size=200))
@settings(max_examples=effort(150))
def test_any_bytes_give_an_image_or_a_verdict_of_decoding(prefix: bytes, rest: bytes) -> None:
    """Nothing else ever leaves the decoder."""
    assert _is_an_outcome(_outcome(prefix + rest))


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=5)), max_size=4),
    st.floats(0.1, 1),
)
@settings(max_examples=effort(300))
def test_any_damage_gives_an_image_or_a_verdict_of_decoding(
    seed: bytes, patches: list[tuple[float, bytes]], share: float
) -> None:
    """Sound files with some bytes replaced and the end cut off, the way damage looks."""
    data = bytearray(seed)
    for place, patch in patches:
        start = int(place * len(seed))
        data[start : start + len(patch)] = patch
    assert _is_an_outcome(_outcome(bytes(data[: int(len(data) * share)])))
