"""Many drawings in memory, ready for training: pixels, the scenes, and batches made from them."""

import io
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from examples.models.drawings import Pixels, Scene, random_jpeg

IMAGE_SIDE = 64
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
CHUNK = 2_000
SHIFT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingSet:
    """`pixels` is N x side x side x 3, `scenes` says what each of them shows."""

    pixels: Pixels
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, rows: Tensor) -> Tensor:
        """Normalise pictures as the processors do, after a small random shift and brightness."""
        x = torch.from_numpy(self.pixels[rows.numpy()]).permute(0, 3, 1, 2).float()
        dx, dy = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
        x = functional.pad(x, (SHIFT,) * 4, mode="replicate")
        x = x[:, :, dy : dy + IMAGE_SIDE, dx : dx + IMAGE_SIDE]
        x = x * (1 + 0.06 * (torch.rand(len(x), 1, 1, 1) - 0.5))
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, DEVIATION))
        return (x - mean) / deviation


def draw_jpegs(seed: int, start: int, count: int) -> Iterator[tuple[Scene, bytes]]:
    """Draw `count` pictures; the same seed and start always give the same bytes."""
    rng = random.Random(f"{seed}:{start}")
    for _ in range(count):
        yield random_jpeg(rng)


def draw_set(seed: int, count: int, processes: int = 2) -> DrawingSet:
    """Draw a training set. Call it before torch has started threads: it forks."""
    pixels = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    scenes: list[Scene] = []
    jobs = [(seed, start, min(CHUNK, count - start)) for start in range(0, count, CHUNK)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for chunk_pixels, chunk_scenes in pool.imap(_draw_chunk, jobs):
            pixels[len(scenes) : len(scenes) + len(chunk_scenes)] = chunk_pixels
            scenes += chunk_scenes
    return DrawingSet(pixels=pixels, scenes=scenes)


def _draw_chunk(job: tuple[int, int, int]) -> tuple[Pixels, list[Scene]]:
    seed, start, count = job
    pixels = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    scenes = []
    for row, (scene, jpeg) in enumerate(draw_jpegs(seed, start, count)):
        with Image.open(io.BytesIO(jpeg)) as image:
            # Squashed to a square, as BLIP's processor does; CLIP's crops a wide picture, which
            # leaves a square one, and most of the set are square.
            squashed = image.convert("RGB").resize(
                (IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC
            )
        pixels[row] = np.asarray(squashed)
        scenes.append(scene)
    return pixels, scenes
