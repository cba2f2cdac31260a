"""Small checkpoints with random weights, made once: real files, real torch, real transformers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.checkpoints import SMALL, save_random_blip, save_random_clip
from consumer.inference.models.device import Device
from consumer.pixels import Pixels
from tests.models.noise import Noise


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: two that wait for each other on busy cores take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CLIP checkpoint."""
    folder = tmp_path_factory.mktemp("clip")
    save_random_clip(folder, SMALL)
    return folder


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BLIP checkpoint."""
    folder = tmp_path_factory.mktemp("blip")
    save_random_blip(folder, SMALL)
    return folder


@pytest.fixture(scope="session")
def cpu() -> Device:
    """Return the host as a device."""
    return Device(torch_device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="session")
def noise() -> Noise:
    """Return a function that makes images, shape (side, side, 3), all different."""
    generator = np.random.default_rng(7)

    def make(count: int, side: int = SMALL.image_side) -> list[Pixels]:
        return list(generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8))

    return make
