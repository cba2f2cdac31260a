"""The types between decoder and models: the size that a model needs, and the pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import Task

Pixels = NDArray[np.uint8]  # shape (height, width, 3), RGB


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The geometry of a model's image processor.

    Without `crop` the image is resized to height x width (BLIP, SigLIP). With `crop` (CLIP) the
    shorter edge is resized to `shortest_edge`, or, if that is 0, the image to `scaled_height` x
    `scaled_width`; then the centre of height x width is cut out. Only `shortest_edge` keeps the
    aspect ratio. `resample` is Pillow's number of the filter.
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
        """The size of the pixels, in 8-bit RGB."""
        return self.height * self.width * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """An image after EXIF orientation: size, format, and the pixels for each task's model."""

    width: int
    height: int
    format: str
    pixels: Mapping[Task, Pixels]
