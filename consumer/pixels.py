"""What travels between decoder and models: the size a model wants, and the image made so."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import Task

Pixels = NDArray[np.uint8]  # shape (height, width, 3), RGB


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The geometry of a model's image processor.

    With `crop` the shorter edge is resized to `shortest_edge` and the centre of height x width is
    cut out (CLIP); without, the image is resized to height x width, whatever its shape (BLIP).
    `resample` is Pillow's number of the filter.
    """

    height: int
    width: int
    resample: int
    crop: bool
    shortest_edge: int = 0

    @property
    def byte_length(self) -> int:
        """What the pixels take: 8-bit RGB."""
        return self.height * self.width * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """An image after EXIF orientation: size, format, and the pixels each task's model takes."""

    width: int
    height: int
    format: str
    pixels: Mapping[Task, Pixels]
