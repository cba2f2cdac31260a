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

    With `crop` the centre of height x width is cut out (CLIP) after the shorter edge was resized to
    `shortest_edge`, or, where that is 0, the image to `scaled_height` x `scaled_width`. Without,
    the image is resized to height x width. Those two ignore its shape (BLIP, SigLIP). `resample` is
    Pillow's number of the filter.
    """

    height: int
    width: int
    resample: int
    crop: bool
    shortest_edge: int = 0
    scaled_height: int = 0
    scaled_width: int = 0

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
