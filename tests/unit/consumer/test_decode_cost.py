"""What a header says of the time that a picture takes, and how many scans a JPEG has."""

import struct

import numpy as np
import pytest
from PIL import Image

from consumer.images.decoding.cost import estimated_seconds, is_costly_for_its_size
from consumer.images.decoding.headers import too_many_scans
from consumer.images.decoding.limits import DecodeLimits, Format
from consumer.images.decoding.recent import REMEMBER_SECONDS, Arrivals, Digests
from tests import pictures
from tests.camera import dng
from tests.corpus import endless_jpeg

pytestmark = pytest.mark.filterwarnings("ignore:.*getdata.*:DeprecationWarning")  # pillow_heif's

SIZE = (720, 540)
LIMITS = DecodeLimits(formats=tuple(Format))
SCAN = b"\xff\xda\x00\x02"


def _file(kind: str, **options: object) -> bytes:
    pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.new("RGB", SIZE, (200, 30, 60))
    return pictures.encoded(image.quantize(4) if kind == "GIF" else image, kind, **options)


@pytest.mark.parametrize(
    ("data", "seconds_a_megapixel"),
    [
        (_file("JPEG"), 0.007),
        (_file("JPEG", progressive=True), 0.015),
        (_file("PNG"), 0.036),
        (_file("WEBP"), 0.026),
        (_file("WEBP", lossless=True), 0.026),
        (_file("WEBP", exif=b"Exif\0\0"), 0.026),
        (_file("GIF"), 0.017),
        (_file("BMP"), 0.013),
        (_file("TIFF"), 0.025),
        (_file("AVIF"), 0.023),
        (_file("HEIF"), 0.09),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_size_in_each_formats_header_is_what_is_counted(
    data: bytes, seconds_a_megapixel: float
) -> None:
    """Width times height, wherever the format has them."""
    megapixels = SIZE[0] * SIZE[1] / 1e6
    assert estimated_seconds(data, LIMITS) == pytest.approx(
        megapixels * seconds_a_megapixel, rel=0.1
    )


def test_scans_count_and_up_to_the_limit_alone() -> None:
    """A JPEG of more is refused before it computes."""
    assert estimated_seconds(endless_jpeg(), LIMITS) == pytest.approx(
        3.94 * (0.01 + 0.05), rel=0.01
    )


def test_picture_over_the_limit_of_pixels_counts_nothing() -> None:
    """It is refused by its header."""
    limits = DecodeLimits(max_pixels=SIZE[0] * SIZE[1] - 1)
    assert estimated_seconds(_file("PNG"), limits) == 0


def test_raw_file_counts_by_its_bytes() -> None:
    """Its first directory is a preview's."""
    data = dng(np.zeros((48, 64, 3), np.uint8))
    assert estimated_seconds(data, LIMITS) == pytest.approx(len(data) / 1e7)


def test_header_that_cannot_be_read_counts_nothing() -> None:
    """No length of any file is an error; what it really takes shows later."""
    for data in [*(data for _, data in pictures.modes()), *pictures.extras(), b"", b"text"]:
        for length in (*range(0, 80, 3), len(data) // 2):
            assert estimated_seconds(data[:length], LIMITS) >= 0


def test_sound_photo_is_not_costly_for_its_size() -> None:
    """A progressive JPEG of 100 megapixels has megabytes; a bomb has none."""
    assert not is_costly_for_its_size(1.5, 15_000_000)
    assert is_costly_for_its_size(2.5, 300_000)


def _scans(*parts: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (_scans(SCAN * 5), False),
        (_scans(SCAN * 6), True),
        (_scans(SCAN * 5) + SCAN * 9, False),
        (_scans(b"\xff\xe1" + struct.pack(">H", 2 + 9 * len(SCAN)) + SCAN * 9, SCAN * 5), False),
        (_scans(SCAN, b"\xff\xfe\x00\x04\xff\xd9", SCAN * 5), True),
        (_scans(SCAN, b"\xff\xff\xff\xda\x00\x02" * 5), True),
        (_scans(SCAN, b"1\xff\x00\xff\xd02" * 9, SCAN * 5), True),
        (_scans(SCAN * 6)[:-2], True),
        (b"\xff\xd8" + b"\xff\xda" * 9, False),
    ],
    ids=[
        "as many as may be",
        "one more",
        "another picture behind the end",
        "those of a thumbnail",
        "an end in a comment",
        "filled markers",
        "data between them",
        "no end",
        "a length beyond the end",
    ],
)
def test_scans_of_the_picture_itself_are_counted(data: bytes, answer: bool) -> None:
    """Those that libjpeg would walk through: none can be hidden, none of others count."""
    assert too_many_scans(data, 5) is answer


def test_pictures_of_encoders_have_few_scans() -> None:
    """Ten, as the usual progression of libjpeg has."""
    data = _file("JPEG", progressive=True)
    assert not too_many_scans(data, 10)
    assert too_many_scans(data, 9)


def test_digest_is_remembered_for_a_while() -> None:
    """And of many the latest 10,000 are."""
    digests = Digests()
    digests.add("a", 0)
    assert digests.holds("a", REMEMBER_SECONDS - 1)
    assert not digests.holds("a", REMEMBER_SECONDS)
    assert not digests.holds("b", 0)
    for number in range(10_000):
        digests.add(str(number), 1)
    assert not digests.holds("a", 1)
    assert digests.holds("0", 1)


def test_slow_pictures_alone_keep_nobody_waiting() -> None:
    """A quarter of the latest 64 has to be others; before there were as many, nobody is there."""
    arrivals = Arrivals()
    assert not arrivals.are_mixed
    for _ in range(16):
        arrivals.add(is_slow=False)
    assert arrivals.are_mixed
    for _ in range(49):
        arrivals.add(is_slow=True)
    assert not arrivals.are_mixed
