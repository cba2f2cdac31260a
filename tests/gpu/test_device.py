"""The models on a real device: the same answers as on the host, and memory that comes back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import load_clip
from consumer.inference.models.device import Device, choose_device
from consumer.pixels import Pixels

MODELS = Path(__file__).parents[2] / "examples/models"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture(params=["float32", "auto"])
def gpu(request: pytest.FixtureRequest) -> Device:
    """Return the device in full precision and in the one it would choose."""
    return choose_device("cuda", request.param)


@pytest.fixture
def images() -> list[Pixels]:
    """Return noise of the tiny models' size."""
    return list(np.random.default_rng(3).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8))


def test_vectors_are_those_of_the_host(gpu: Device, images: list[Pixels]) -> None:
    """By cosine: kernels differ, and half precision rounds."""
    checkpoint = inspect(str(MODELS / "tiny-clip"), "main", "clip")
    on_host = load_clip(checkpoint, choose_device("cpu")).embed(images)

    vectors = load_clip(checkpoint, gpu).embed(images)

    assert vectors.dtype == np.float32
    assert (vectors * on_host).sum(axis=1).min() > 0.999


def test_offload_frees_the_device_and_keeps_the_host(gpu: Device, images: list[Pixels]) -> None:
    """To the device, off it, back, and away: captions stay, the device's memory does not."""
    blip = GreedyCaptioner(
        inspect(str(MODELS / "tiny-blip"), "main", "blip"), gpu, max_new_tokens=20
    )
    before = torch.cuda.memory_allocated()
    blip.load()
    assert torch.cuda.memory_allocated() == before

    blip.to_device()
    first = blip.caption(images)
    assert torch.cuda.memory_allocated() > before + 1_000_000
    blip.offload()
    assert torch.cuda.memory_allocated() < before + 100_000
    blip.to_device()
    second = blip.caption(images)
    blip.unload()

    assert first == second
    assert torch.cuda.memory_allocated() < before + 100_000


def test_out_of_memory_leaves_the_device_usable(images: list[Pixels]) -> None:
    """A batch that cannot fit is a lack of memory, and the next one works."""
    from consumer.inference.errors import DeviceOutOfMemory

    clip = load_clip(inspect(str(MODELS / "tiny-clip"), "main", "clip"), choose_device("cuda"))
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(int(free * 0.98), dtype=torch.uint8, device="cuda")

    with pytest.raises(DeviceOutOfMemory):
        clip.embed(images * 2000)
    del hog

    assert len(clip.embed(images)) == 9
