"""Our pixels against those of the transformers image processors, before normalisation."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from consumer.images.decoding.image import decode
from consumer.images.decoding.limits import DecodeLimits
from consumer.pixels import Pixels, Resize
from schemas import Task

CROPPED = {
    "clip": ({"shortest_edge": 224}, {"height": 224, "width": 224}),
    "small": ({"shortest_edge": 64}, {"height": 64, "width": 64}),
    "odd": ({"shortest_edge": 97}, {"height": 63, "width": 90}),
    "crop larger than the resized image": ({"shortest_edge": 30}, {"height": 51, "width": 44}),
}
SQUASHED = {"blip": (384, 384), "small": (64, 64), "oblong": (40, 91)}
# No multiple of anything, tall, wide, smaller than the target, very wide.
SIZES = ((640, 480), (481, 641), (333, 1001), (57, 41), (3, 5), (1499, 31))


def drawing(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return shapes with hard edges, where a pixel's difference in geometry shows."""
    image = Image.new("RGB", (width, height), (250, 240, 230))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 5, height // 4, width // 2, height * 3 // 4), fill=(200, 20, 40))
    draw.rectangle((width // 2, height // 3, width - 2, height - 2), fill=(20, 90, 200))
    draw.line((0, 0, width, height), fill=(0, 0, 0), width=max(1, height // 40))
    return image.convert(mode)


def ours(image: Image.Image, to: Resize, kind: str = "PNG", **options: object) -> Pixels:
    """Return the pixels that the consumer makes of the image in a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    limits = DecodeLimits(max_aspect_ratio=100)
    return decode(buffer.getvalue(), {Task.EMBED: to}, limits).pixels[Task.EMBED]


def theirs(processor: CLIPImageProcessorPil | BlipImageProcessorPil, image: Image.Image) -> Pixels:
    """Return what the model's own processor makes of it, up to normalisation."""
    values = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.moveaxis(values["pixel_values"][0], 0, -1)


def assert_close(left: Pixels, right: Pixels) -> None:
    """Both have one shape and no value differs by more than one grey level."""
    assert left.shape == right.shape
    assert np.abs(left.astype(int) - right.astype(int)).max() <= 1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CROPPED)
def test_crop_is_that_of_clip(name: str, size: tuple[int, int]) -> None:
    """Shortest edge, rounding, centre crop and padding are the processor's."""
    edge, crop = CROPPED[name]
    processor = CLIPImageProcessorPil(size=edge, crop_size=crop)
    to = Resize(
        **crop, resample=int(processor.resample), crop=True, shortest_edge=edge["shortest_edge"]
    )
    assert_close(ours(drawing(*size), to), theirs(processor, drawing(*size)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", SQUASHED)
def test_squash_is_that_of_blip(name: str, size: tuple[int, int]) -> None:
    """Height and width are taken whatever the shape, as the processor does."""
    height, width = SQUASHED[name]
    processor = BlipImageProcessorPil(size={"height": height, "width": width})
    to = Resize(height=height, width=width, resample=int(processor.resample), crop=False)
    assert_close(ours(drawing(*size), to), theirs(processor, drawing(*size)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("crop", [(64, 64), (63, 90), (40, 30), (100, 120)], ids=str)
def test_crop_after_a_squash_is_that_of_clip(crop: tuple[int, int], size: tuple[int, int]) -> None:
    """A processor may resize to height and width, and then cut the centre out, or pad."""
    sides = {"height": crop[0], "width": crop[1]}
    processor = CLIPImageProcessorPil(size={"height": 64, "width": 97}, crop_size=sides)
    to = Resize(
        **sides, resample=int(processor.resample), crop=True, scaled_height=64, scaled_width=97
    )
    assert_close(ours(drawing(*size), to), theirs(processor, drawing(*size)))


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_other_modes_are_converted_as_theirs(mode: str) -> None:
    """An opaque image of another mode gives the same pixels too."""
    processor = CLIPImageProcessorPil()
    to = Resize(height=224, width=224, resample=3, crop=True, shortest_edge=224)
    image = drawing(481, 333, mode)
    assert_close(ours(image, to), theirs(processor, image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_image_is_that_of_the_upright_one(orientation: int) -> None:
    """Odd sides and an odd crop: turning after the resize moves nothing by a pixel."""
    edge, crop = CROPPED["odd"]
    processor = CLIPImageProcessorPil(size=edge, crop_size=crop)
    to = Resize(**crop, resample=3, crop=True, shortest_edge=edge["shortest_edge"])
    image = drawing(481, 332)
    image.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(image)
    assert_close(ours(image, to, exif=image.getexif()), theirs(processor, upright))
