"""The list of example pictures: what each shows, how large it is and how it is written."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from examples.models import drawings
from examples.models.drawings import Family, Scene, Thing
from examples.pictures.encodings import (
    Writer,
    in_mode,
    lossless_webp,
    plain,
    poor_jpeg,
    progressive_jpeg,
    see_through,
    sixteen_bit_gray_png,
    sixteen_bit_png,
    turned,
)

SceneMaker = Callable[[random.Random], Scene]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One file. `shows_colours` is false where the encoding drops them, so no caption is true."""

    name: str
    scene: SceneMaker
    write: Writer = plain
    width: int = 320
    height: int = 320
    noise_sigma: float = 3.0
    shows_colours: bool = True


def catalogue() -> list[Example]:
    """List every good example picture."""
    return [*_plain_ones(), *_unusual_jpegs(), *_turned_jpegs(), *_pngs(), *_others()]


def _one(size: str, colour: str, shape: str, background: str = "white") -> SceneMaker:
    thing = Thing(colour=colour, shape=shape)
    return partial(drawings.single, size=size, thing=thing, background=background)


def _many(count: int, colour: str, shape: str, background: str = "white") -> SceneMaker:
    thing = Thing(colour=colour, shape=shape)
    return partial(drawings.counted, count=count, thing=thing, background=background)


def _two(family: Family, first: str, second: str, background: str = "white") -> SceneMaker:
    (colour_1, shape_1), (colour_2, shape_2) = first.split(), second.split()
    things = (Thing(colour=colour_1, shape=shape_1), Thing(colour=colour_2, shape=shape_2))
    return partial(drawings.pair, family=family, things=things, background=background)


_beside = partial(_two, Family.BESIDE)
_above = partial(_two, Family.ABOVE)


def _plain_ones() -> list[Example]:
    return [
        Example(name="large-red-circle.jpg", scene=_one("large", "red", "circle")),
        Example(name="two-green-stars.jpg", scene=_many(2, "green", "star", "black")),
        Example(
            name="blue-square-beside-yellow-star.jpg",
            scene=_beside("blue square", "yellow star", "gray"),
        ),
        Example(
            name="orange-triangle-above-purple-circle.jpg",
            scene=_above("orange triangle", "purple circle"),
        ),
        Example(
            name="wide-three-brown-triangles.jpg",
            scene=_many(3, "brown", "triangle"),
            width=480,
        ),
        Example(
            name="tall-pink-star-above-blue-circle.jpg",
            scene=_above("pink star", "blue circle", "black"),
            height=480,
        ),
    ]


def _unusual_jpegs() -> list[Example]:
    return [
        Example(
            name="cmyk-blue-star.jpg", scene=_one("large", "blue", "star"), write=in_mode("CMYK")
        ),
        Example(
            name="grayscale-three-circles.jpg",
            scene=_many(3, "red", "circle"),
            write=in_mode("L"),
            shows_colours=False,
        ),
        Example(
            name="low-quality-four-yellow-crosses.jpg",
            scene=_many(4, "yellow", "cross", "black"),
            write=poor_jpeg,
        ),
        Example(
            name="progressive-large-pink-cross.jpg",
            scene=_one("large", "pink", "cross", "gray"),
            write=progressive_jpeg,
        ),
        Example(
            name="4000x3000-green-cross-beside-red-triangle.jpg",
            scene=_beside("green cross", "red triangle"),
            width=4000,
            height=3000,
            noise_sigma=0.0,
        ),
    ]


def _turned_jpegs() -> list[Example]:
    """Pairs in wide pictures: unturned, they would show something else, in another shape."""
    scenes = {
        2: ("red-circle-beside-blue-square", _beside("red circle", "blue square")),
        3: ("green-star-above-orange-cross", _above("green star", "orange cross", "gray")),
        4: ("yellow-circle-above-purple-star", _above("yellow circle", "purple star", "black")),
        5: ("brown-square-beside-pink-circle", _beside("brown square", "pink circle")),
        6: ("blue-triangle-beside-red-cross", _beside("blue triangle", "red cross", "gray")),
        7: ("purple-cross-above-green-square", _above("purple cross", "green square")),
        8: ("orange-circle-beside-green-star", _beside("orange circle", "green star", "black")),
    }
    return [
        Example(name=f"exif-{o}-{name}.jpg", scene=scene, write=turned(o), width=400)
        for o, (name, scene) in scenes.items()
    ]


def _pngs() -> list[Example]:
    return [
        Example(name="small-purple-triangle.png", scene=_one("small", "purple", "triangle")),
        Example(
            name="tiny-48x48-large-green-square.png",
            scene=_one("large", "green", "square"),
            width=48,
            height=48,
        ),
        Example(
            name="palette-three-orange-squares.png",
            scene=_many(3, "orange", "square", "black"),
            write=in_mode("P"),
            noise_sigma=0.0,
        ),
        Example(
            name="alpha-large-green-cross.png",
            scene=_one("large", "green", "cross"),
            write=see_through,
        ),
        Example(
            name="16-bit-large-red-square.png",
            scene=_one("large", "red", "square", "gray"),
            write=sixteen_bit_png,
            noise_sigma=0.0,
        ),
        Example(
            name="16-bit-grayscale-large-star.png",
            scene=_one("large", "yellow", "star", "black"),
            write=sixteen_bit_gray_png,
            noise_sigma=0.0,
            shows_colours=False,
        ),
        Example(
            name="gray-alpha-two-stars.png",
            scene=_many(2, "blue", "star"),
            write=in_mode("LA"),
            shows_colours=False,
        ),
        Example(
            name="1-bit-two-crosses.png",
            scene=_many(2, "purple", "cross"),
            write=in_mode("1"),
            noise_sigma=0.0,
            shows_colours=False,
        ),
    ]


def _others() -> list[Example]:
    return [
        Example(name="three-pink-squares.webp", scene=_many(3, "pink", "square", "gray")),
        Example(
            name="lossless-small-brown-circle.webp",
            scene=_one("small", "brown", "circle"),
            write=lossless_webp,
            noise_sigma=0.0,
        ),
        Example(
            name="alpha-two-blue-triangles.webp",
            scene=_many(2, "blue", "triangle"),
            write=see_through,
        ),
        Example(
            name="two-red-crosses.gif", scene=_many(2, "red", "cross", "black"), noise_sigma=0.0
        ),
        Example(
            name="four-blue-triangles.bmp",
            scene=_many(4, "blue", "triangle"),
            width=200,
            height=200,
        ),
    ]
