"""The type of the fixture `noise`."""

from typing import Protocol

from consumer.pixels import Pixels


class Noise(Protocol):
    """Makes `count` images of shape (side, side, 3), all different."""

    def __call__(self, count: int, side: int = ...) -> list[Pixels]: ...
