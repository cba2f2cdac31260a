"""The world of the drawn pictures: which scenes exist, what is true of them, how they look.

A scene is one shape of two sizes, two to four equal shapes, or two different shapes beside or
above each other: 3,720 captions in all. Nothing here draws randomness of its own: every choice
comes from the `random.Random` that is passed in, so a seed is a picture. No torch in this file,
because the example pictures are drawn, and tested, without it.
"""

import functools
import io
import itertools
import math
import random
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (30, 70, 220),
    "yellow": (240, 220, 40),
    "orange": (250, 140, 20),
    "purple": (130, 30, 160),
    "pink": (250, 130, 190),
    "brown": (120, 72, 35),
}
BACKGROUNDS = {"white": 246, "black": 10, "gray": 128}
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
}
SHAPES = tuple(PLURALS)
COUNTS = {2: "two", 3: "three", 4: "four"}
# Radius as a fraction of the picture's side; the gap between the two is what makes the word clear.
SIZES = {"small": (0.10, 0.135), "large": (0.23, 0.32)}
NOISE_BANK_SIDE = 512

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]


class Family(Enum):
    """The four kinds of scene."""

    SINGLE = "single"
    COUNTED = "counted"
    ABOVE = "above"
    BESIDE = "beside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A coloured shape, before it has a place."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def one(self) -> str:
        """Return it with its article: `a red star`, `an orange star`."""
        return f"{'an' if self.colour == 'orange' else 'a'} {self}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Centre and radius of a shape, as fractions of the scene's side."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows. `size` is set for a single shape only."""

    family: Family
    background: str
    things: tuple[Thing, ...]
    places: tuple[Place, ...]
    size: str | None = None

    def true_captions(self) -> tuple[str, ...]:
        """Return every caption that is true of the picture, the whole one last."""
        first = self.things[0]
        tail = f" on a {self.background} background"
        match self.family:
            case Family.SINGLE:
                sized = f"a {self.size} {first}"
                return (first.one, sized, f"{first.one}{tail}", f"{sized}{tail}")
            case Family.COUNTED:
                many = f"{COUNTS[len(self.things)]} {first.colour} {PLURALS[first.shape]}"
                return (many, f"{many}{tail}")
            case Family.ABOVE:
                return (f"{first.one} above {self.things[1].one}",)
            case Family.BESIDE:
                return (f"{first.one} on the left and {self.things[1].one} on the right",)

    @property
    def caption(self) -> str:
        """Return the whole caption: the one the caption model is asked for."""
        return self.true_captions()[-1]


def single(rng: random.Random, size: str, thing: Thing, background: str) -> Scene:
    """Place one shape anywhere it fits."""
    radius = rng.uniform(*SIZES[size])
    margin = radius * 1.25 + 0.02
    place = Place(
        x=rng.uniform(margin, 1 - margin), y=rng.uniform(margin, 1 - margin), radius=radius
    )
    return Scene(
        family=Family.SINGLE, background=background, things=(thing,), places=(place,), size=size
    )


def counted(rng: random.Random, count: int, thing: Thing, background: str) -> Scene:
    """Place two to four equal shapes so that none touches another."""
    radius = rng.uniform(*SIZES["small"])
    while True:
        centres = [(rng.uniform(0.17, 0.83), rng.uniform(0.17, 0.83)) for _ in range(count)]
        if all(math.dist(a, b) > radius * 2.55 for a, b in itertools.combinations(centres, 2)):
            break
    places = tuple(Place(x=x, y=y, radius=radius) for x, y in centres)
    return Scene(
        family=Family.COUNTED, background=background, things=(thing,) * count, places=places
    )


def pair(rng: random.Random, family: Family, things: tuple[Thing, Thing], background: str) -> Scene:
    """Place two different shapes: the first on the left, or above."""
    along = (rng.uniform(0.2, 0.32), rng.uniform(0.68, 0.8))
    across = (rng.uniform(0.36, 0.64), rng.uniform(0.36, 0.64))
    radii = (rng.uniform(0.12, 0.17), rng.uniform(0.12, 0.17))
    xs, ys = (along, across) if family is Family.BESIDE else (across, along)
    places = tuple(Place(x=x, y=y, radius=r) for x, y, r in zip(xs, ys, radii, strict=True))
    return Scene(family=family, background=background, things=things, places=places)


def random_scene(rng: random.Random) -> Scene:
    """Choose a scene: 30 % single, 35 % counted, 35 % pairs, because one shape is the easiest."""
    background = rng.choice(list(BACKGROUNDS))
    thing = _random_thing(rng)
    kind = rng.random()
    if kind < 0.30:
        return single(rng, rng.choice(list(SIZES)), thing, background)
    if kind < 0.65:
        return counted(rng, rng.choice(list(COUNTS)), thing, background)
    other = thing
    while other == thing:
        other = _random_thing(rng)
    return pair(rng, rng.choice([Family.ABOVE, Family.BESIDE]), (thing, other), background)


def _random_thing(rng: random.Random) -> Thing:
    return Thing(colour=rng.choice(list(COLOURS)), shape=rng.choice(SHAPES))


def render(
    scene: Scene, rng: random.Random, *, width: int, height: int, noise_sigma: float = 0.0
) -> Image.Image:
    """Paint a scene into the centred square of a canvas, with colours a little off their names.

    Noise needs both sides to be at most `NOISE_BANK_SIDE`.
    """
    gray = BACKGROUNDS[scene.background]
    image = Image.new("RGB", (width, height), _near(rng, (gray, gray, gray), 9))
    draw = ImageDraw.Draw(image)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    tints = {t.colour: _near(rng, COLOURS[t.colour], 14) for t in scene.things}
    for thing, place in zip(scene.things, scene.places, strict=True):
        centre = (left + place.x * side, top + place.y * side)
        _paint(draw, rng, thing.shape, centre, place.radius * side, tints[thing.colour])
    if noise_sigma == 0.0:
        return image
    x, y = rng.randrange(NOISE_BANK_SIDE - width + 1), rng.randrange(NOISE_BANK_SIDE - height + 1)
    noisy = np.asarray(image, np.float32)
    noisy = noisy + noise_sigma * _noise_bank()[y : y + height, x : x + width]
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def random_jpeg(rng: random.Random) -> tuple[Scene, bytes]:
    """Draw one training or test picture as JPEG bytes, one in five of them wide or tall."""
    scene = random_scene(rng)
    width = height = rng.choice([112, 128, 160, 192, 224])
    match rng.randrange(10):
        case 0:
            width = round(width * rng.uniform(1.0, 1.5))
        case 1:
            height = round(height * rng.uniform(1.0, 1.5))
    image = render(scene, rng, width=width, height=height, noise_sigma=rng.uniform(0.1, 9))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(60, 95))
    return scene, buffer.getvalue()


def all_captions() -> list[str]:
    """List the whole captions of every possible scene, in a fixed order."""
    things = [Thing(colour=c, shape=s) for c in COLOURS for s in SHAPES]
    tails = [f" on a {b} background" for b in BACKGROUNDS]
    captions = [f"a {z} {t}{tail}" for z in SIZES for t in things for tail in tails]
    captions += [
        f"{n} {t.colour} {PLURALS[t.shape]}{tail}"
        for n in COUNTS.values()
        for t in things
        for tail in tails
    ]
    for a, b in itertools.permutations(things, 2):
        captions += [f"{a.one} above {b.one}", f"{a.one} on the left and {b.one} on the right"]
    return captions


def words() -> list[str]:
    """List every word a caption can hold: both tokenizers keep each of them whole."""
    grammar = ["a", "an", "on", "background", "the", "left", "right", "and", "above"]
    plurals = list(PLURALS.values())
    return [*grammar, *COUNTS.values(), *SIZES, *COLOURS, *SHAPES, *plurals, *BACKGROUNDS]


def _near(rng: random.Random, colour: Colour, spread: int) -> Colour:
    r, g, b = (max(0, min(255, value + rng.randint(-spread, spread))) for value in colour)
    return r, g, b


def _paint(
    draw: ImageDraw.ImageDraw,
    rng: random.Random,
    shape: str,
    centre: tuple[float, float],
    radius: float,
    colour: Colour,
) -> None:
    x, y = centre
    if shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        return
    turn, corners = _outline(shape, rng)
    draw.polygon(
        [
            (
                x + radius * length * math.cos(math.radians(degrees + turn)),
                y + radius * length * math.sin(math.radians(degrees + turn)),
            )
            for degrees, length in corners
        ],
        fill=colour,
    )


def _outline(shape: str, rng: random.Random) -> tuple[float, list[tuple[float, float]]]:
    """Return a small random turn and the corners as (degrees, length in radii)."""
    match shape:
        case "square":
            return rng.uniform(35, 55), [(90.0 * i, 1.18) for i in range(4)]
        case "triangle":
            return rng.uniform(-104, -76), [(120.0 * i, 1.2) for i in range(3)]
        case "star":
            lengths = itertools.cycle([1.25, 0.5])
            return rng.uniform(-108, -72), [(36.0 * i, next(lengths)) for i in range(10)]
        case "cross":
            arm = [(1.15, -0.34), (1.15, 0.34), (0.34, 0.34)]
            polar = [(math.degrees(math.atan2(y, x)), math.hypot(x, y)) for x, y in arm]
            turns = [90.0 * quarter for quarter in range(4)]
            return rng.uniform(-10, 10), [(a + t, length) for t in turns for a, length in polar]
    raise ValueError(f"no such shape: {shape}")


@functools.cache
def _noise_bank() -> npt.NDArray[np.float32]:
    # One bank, sampled at random offsets: drawing fresh noise took longer than everything else.
    shape = (NOISE_BANK_SIDE, NOISE_BANK_SIDE, 3)
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
