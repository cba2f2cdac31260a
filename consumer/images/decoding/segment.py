"""Memory that the consumer and one decoding process share: the pixels of its current picture.

Each process has a segment of its own, its successor another one, and no other process maps it: one
picture's pixels never reach the process of another picture.
"""

import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Final

import numpy as np

from consumer.pixels import Pixels, Resize
from schemas import Task

# Two pictures of 1,672 x 1,672 pixels. Only written pages take memory.
PIXEL_BYTES: Final = 16 << 20


def create() -> int:
    """Return the descriptor of a new segment, which cannot be made shorter."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            file.truncate(PIXEL_BYTES)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, PIXEL_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    return descriptor


class Segment:
    """One end of the segment: this process's view of it."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, PIXEL_BYTES)

    def close(self) -> None:
        """Unmap the segment; the second of both ends to do so frees it."""
        self._map.close()

    def put_pixels(self, pixels: Mapping[Task, Pixels]) -> None:
        """Write the pixels of all targets, one after the other."""
        at = 0
        for array in pixels.values():
            self._map[at : at + array.nbytes] = array.data.cast("B")
            at += array.nbytes

    def take_pixels(self, targets: Mapping[Task, Resize]) -> dict[Task, Pixels]:
        """Return copies of the pixels, shape (height, width, 3) of uint8 for each target."""
        taken, at = {}, 0
        for task, to in targets.items():
            view = np.frombuffer(self._map, np.uint8, to.byte_length, at)
            taken[task] = view.reshape(to.height, to.width, 3).copy()
            at += to.byte_length
        return taken
