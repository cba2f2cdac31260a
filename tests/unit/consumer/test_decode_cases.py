"""Files that people really send: right as in browsers, or refused by name."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consumer.errors import Failed
from consumer.images.decoding.image import decode
from consumer.images.decoding.limits import DecodeLimits, Format
from consumer.images.decoding.magic import sniff
from consumer.pixels import DecodedImage, Resize
from schemas import Code, Task
from tests import corpus
from tests.pictures import drawing, encoded

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\..*")

IMAGES = Path(__file__).resolve().parents[2] / "images"
LIMITS = DecodeLimits(formats=tuple(Format))
WHITE = (255, 255, 255)


def _decoded(data: bytes, width: int, height: int, limits: DecodeLimits = LIMITS) -> DecodedImage:
    to = Resize(height=height, width=width, resample=Image.Resampling.NEAREST, crop=False)
    return decode(data, {Task.EMBED: to}, limits)


def _shown(data: bytes, width: int, height: int) -> np.ndarray:
    image = _decoded(data, width, height)
    assert (image.width, image.height) == (width, height)
    return image.pixels[Task.EMBED]


def _verdict(data: bytes, limits: DecodeLimits = LIMITS) -> Failed:
    with pytest.raises(Failed) as caught:
        _decoded(data, 8, 8, limits)
    return caught.value


def test_canvas_of_an_animated_webp_is_white_where_the_first_frame_is_not() -> None:
    """Though the file says that it has no alpha: Chromium shows a mean of 228, black gives 14."""
    pixels = _shown((IMAGES / "webp-animated-transparent-canvas.webp").read_bytes(), 100, 100)
    assert pixels[0, 0].tolist() == list(WHITE)
    assert abs(pixels.mean() - 228) < 3


def test_screen_of_a_gif_is_white_where_the_first_frame_is_not() -> None:
    """Not the first colour of its palette."""
    pixels = _shown((IMAGES / "gif-first-frame-smaller-than-canvas.gif").read_bytes(), 64, 48)
    outside = np.ones((48, 64), bool)
    outside[20:36, 30:50] = False
    assert (pixels[outside] == 255).all()
    assert len(np.unique(pixels[~outside], axis=0)) > 1


def test_lab_tiff_has_its_colours() -> None:
    """Converted by a module that Pillow imports when it sees the first one."""
    pixels = _shown((IMAGES / "tiff-lab.tif").read_bytes(), *_size("tiff-lab.tif"))
    np.testing.assert_allclose(pixels[0, 0], (200, 61, 39), atol=6)
    np.testing.assert_allclose(pixels[25, 35], (40, 80, 200), atol=6)


def _size(name: str) -> tuple[int, int]:
    with Image.open(IMAGES / name) as image:
        return image.size


@pytest.mark.parametrize("name", ["png-zipped-xmp.png", "png-large-icc.png"])
def test_large_metadata_of_a_png_is_left_out(name: str) -> None:
    """Editors write megabytes of XMP; a browser shows the picture."""
    image = _decoded((IMAGES / name).read_bytes(), 8, 8)
    assert image.format == "PNG"
    assert image.pixels[Task.EMBED].std() > 0


def _png(*chunks: bytes) -> bytes:
    rows = b"".join(b"\0" + b"\xff\0\0" * 24 for _ in range(16))
    return corpus.png(24, 16, *chunks, corpus.chunk(b"IDAT", zlib.compress(rows)))


def _spoilt(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


def test_wrong_checksum_counts_in_what_the_picture_needs_alone() -> None:
    """As the standard has it: a chunk whose name begins with a small letter may be skipped."""
    time = corpus.chunk(b"tIME", bytes(7))
    assert (_shown(_png(_spoilt(time)), 24, 16) == (255, 0, 0)).all()
    header = corpus.png_header(24, 16)
    spoilt = header[:29] + b"\0\0\0\0" + header[33:]
    assert _verdict(spoilt).code is Code.CORRUPT_IMAGE


def test_orientation_in_a_png_is_still_found() -> None:
    """What is left out is what is too large."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = _decoded(encoded(drawing(), "PNG", exif=exif), 8, 8)
    assert (image.width, image.height) == drawing().size[::-1]


def test_jpeg_without_its_end_marker_is_shown() -> None:
    """Every pixel is there."""
    data = (IMAGES / "jpeg-without-eoi.jpg").read_bytes()
    whole = _shown(data + b"\xff\xd9", 64, 48)
    np.testing.assert_array_equal(_shown(data, 64, 48), whole)


@pytest.mark.parametrize(
    ("kept", "progressive", "is_shown"),
    [
        (1, False, True),
        (0.9995, False, True),
        (0.9, False, False),
        (1, True, True),
        (0.9, True, True),
        (0.5, True, False),
    ],
)
def test_jpeg_that_is_cut_is_shown_where_hardly_a_row_is_missing(
    kept: float, progressive: bool, is_shown: bool
) -> None:
    """At most a hundredth, at the size at which it is decoded: a last refinement may be missing."""
    noise = np.random.default_rng(2).integers(0, 256, (2400, 320, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
    cut = data[: int((len(data) - 2) * kept)]
    if is_shown:
        assert _decoded(cut, 8, 8).height == 2400
    else:
        assert _verdict(cut).code is Code.CORRUPT_IMAGE


def test_lossless_jpeg_is_read_at_its_own_size() -> None:
    """libjpeg reduces none of them, though Pillow asks for it."""
    pixels = _shown(_lossless_jpeg(64, 48, 77), 64, 48)
    assert (pixels == 77).all()


def _lossless_jpeg(width: int, height: int, gray: int) -> bytes:
    """Return a JPEG of SOF3 whose samples are all `gray`: the first differs, no other does."""
    difference = gray - 128
    bits = f"{difference - 1 + 2 ** (-difference).bit_length():0{(-difference).bit_length()}b}"
    # Two codes of two bits: 00 for no difference, 01 for the category of the first one.
    text = "01" + bits + "00" * (width * height - 1)
    text += "1" * (-len(text) % 8)
    packed = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    lengths = bytes([0, 2, *[0] * 14])
    category = (-difference).bit_length()
    segments = (
        (0xC3, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)),
        (0xC4, b"\0" + lengths + bytes([0, category])),
        (0xDA, bytes([1, 1, 0, 1, 0, 0])),
    )
    head = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments
    )
    return b"\xff\xd8" + head + packed + b"\xff\xd9"


@pytest.mark.parametrize("size", [(8160, 6144), (11648, 8736), (16384, 8192)])
def test_full_size_photo_of_a_camera_is_decoded_by_default(size: tuple[int, int]) -> None:
    """JPEG is read at a part of its size, so its pixels cost little."""
    data = encoded(Image.new("L", size, 99), "JPEG")
    limits = DecodeLimits()
    image = _decoded(data, 8, 8, limits)
    assert (image.width, image.height) == size
    assert abs(int(image.pixels[Task.EMBED].mean()) - 99) <= 1


def test_refusal_names_size_and_limit() -> None:
    """And the setting, so that it can be changed; Pillow's own guard has nothing to say."""
    data = encoded(Image.new("L", (400, 300)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    huge = data[:at] + struct.pack(">HH", 20_000, 25_000) + data[at + 4 :]
    assert _verdict(huge).code is Code.TOO_MANY_PIXELS
    assert _verdict(huge).message == (
        "25000 x 20000 = 500 megapixels; at most 200 (MAX_IMAGE_PIXELS)"
    )


def test_format_that_takes_more_memory_may_have_fewer_pixels() -> None:
    """With the setting that decides it, and never more than MAX_IMAGE_PIXELS."""
    failed = _verdict(corpus.png_header(12_000, 12_000))
    assert failed.code is Code.TOO_MANY_PIXELS
    assert "12000 x 12000 = 144 megapixels; at most 72.7" in failed.message
    assert "DECODE_MEMORY_BYTES, as PNG" in failed.message
    small = DecodeLimits(max_pixels=1000)
    assert small.pixels("PNG") == small.pixels("JPEG") == 1000
    progressive = encoded(Image.new("L", (400, 300)), "JPEG", progressive=True)
    at = progressive.index(b"\xff\xc2") + 5
    large = progressive[:at] + struct.pack(">HH", 11_000, 11_000) + progressive[at + 4 :]
    assert "as whole JPEG" in _verdict(large).message


@pytest.mark.parametrize("depth", [2, 3])
def test_bmp_that_pillow_has_no_parser_for_is_unsupported(depth: int) -> None:
    """It is sound, so it is not called corrupt."""
    data = bytearray(encoded(drawing().quantize(4), "BMP"))
    data[28:30] = depth.to_bytes(2, "little")
    assert _verdict(bytes(data)).code is Code.UNSUPPORTED_FORMAT


def test_tiff_that_pillow_misreads_is_refused_by_name() -> None:
    """A colour map of 8 bits came out black; planes of 16 bits came out wrong."""
    data = encoded(drawing().quantize(16), "TIFF")
    with Image.open(io.BytesIO(data)) as image:
        colours = tuple(value // 257 for value in image.tag_v2[320])  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    drawing().quantize(16).save(buffer, "TIFF")
    small = _with_colour_map(buffer.getvalue(), colours)
    assert "colour map of 8 bits" in _verdict(small).message
    assert _verdict(small).code is Code.UNSUPPORTED_FORMAT
    assert _decoded(data, 8, 8).format == "TIFF"


@pytest.mark.parametrize(("sample", "name"), [(2, "signed numbers"), (3, "floats")])
def test_tiff_of_other_samples_is_refused_by_name(sample: int, name: str) -> None:
    """It is sound: scanners and scientists write it, and Pillow cannot open it."""
    buffer = io.BytesIO()
    drawing().convert("RGB").save(buffer, "TIFF", tiffinfo={339: (sample,) * 3})
    failed = _verdict(buffer.getvalue())
    assert (failed.code, failed.message) == (Code.UNSUPPORTED_FORMAT, f"a TIFF of {name}")


def test_tiff_of_whole_numbers_that_cannot_be_opened_is_broken() -> None:
    """What it says of its samples is no excuse."""
    buffer = io.BytesIO()
    drawing().convert("RGB").save(buffer, "TIFF", tiffinfo={262: 77})
    assert _verdict(buffer.getvalue()).code is Code.CORRUPT_IMAGE


def test_tiff_compressed_as_webp_is_refused_by_name() -> None:
    """Pillow's own libtiff has no WebP in it."""
    buffer = io.BytesIO()
    drawing().convert("RGB").save(buffer, "TIFF", tiffinfo={259: 50001})
    data = buffer.getvalue()
    compression = struct.pack("<HHI", 259, 3, 1)
    at = data.index(compression) + len(compression)
    failed = _verdict(data[:at] + struct.pack("<H", 50001) + data[at + 2 :])
    assert (failed.code, failed.message) == (
        Code.UNSUPPORTED_FORMAT,
        "a TIFF compressed as WebP",
    )


def _with_colour_map(data: bytes, colours: tuple[int, ...]) -> bytes:
    """Return a little-endian TIFF with other values in its colour map."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for index in range(count):
        tag, _, length, value = struct.unpack_from("<HHII", data, directory + 2 + 12 * index)
        if tag == 320:
            changed = struct.pack(f"<{length}H", *colours)
            return data[:value] + changed + data[value + len(changed) :]
    raise AssertionError("no colour map")


def test_separate_planes_of_16_bits_are_refused() -> None:
    """Pillow shows them as stripes."""
    plane = bytes(64 * 64 * 2)
    entries = (
        (256, 4, 64),
        (257, 4, 64),
        (259, 3, 1),
        (262, 3, 2),
        (277, 3, 3),
        (284, 3, 2),
    )
    # BitsPerSample, offsets and counts have three values each, behind the pixels.
    data = 3 * plane
    arrays = struct.pack("<3H2x3I3I", 16, 16, 16, *(8 + at * 8192 for at in range(3)), *[8192] * 3)
    start = 8 + len(data)
    rows = [(tag, kind, 1, value) for tag, kind, value in entries]
    rows += [(258, 3, 3, start), (273, 4, 3, start + 8), (279, 4, 3, start + 20)]
    directory = struct.pack("<H", len(rows)) + b"".join(
        struct.pack("<HHII", *row) for row in sorted(rows)
    )
    head = b"II*\0" + struct.pack("<I", start + len(arrays))
    failed = _verdict(head + data + arrays + directory + bytes(4))
    assert failed.code is Code.UNSUPPORTED_FORMAT
    assert "separate planes" in failed.message


@pytest.mark.parametrize(
    ("major", "compatible", "kind"),
    [
        (b"mif2", b"heic", "HEIC"),
        (b"mif3", b"avif", "AVIF"),
        (b"heis", b"", "HEIC"),
        (b"zzzz", b"mif1heic", "HEIC"),
        (b"zzzz", b"isomavis", "AVIF"),
        (b"isom", b"mp42", "MP4"),
        (b"qt  ", b"", "QuickTime"),
        (b"crx ", b"isom", "CR3"),
    ],
)
def test_brands_of_an_iso_file_say_what_it_is(major: bytes, compatible: bytes, kind: str) -> None:
    """The compatible ones where the major one is general, or not known."""
    length = 16 + len(compatible)
    head = length.to_bytes(4, "big") + b"ftyp" + major + bytes(4) + compatible
    assert sniff(head + bytes(64)) == kind
