"""CLIP's vectors, against transformers' own processor and model."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import load_clip
from consumer.inference.models.device import Device
from consumer.pixels import Pixels
from tests.models.noise import Noise

TINY = Path(__file__).parents[2] / "examples/models/tiny-clip"


@pytest.fixture(params=["random", "tiny"])
def folder(request: pytest.FixtureRequest, clip_folder: Path) -> Path:
    """Return a checkpoint: one with random weights, and the trained one of the examples."""
    return clip_folder if request.param == "random" else TINY


def reference(folder: Path, images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return unit vectors by transformers alone."""
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    inputs = processor([Image.fromarray(pixels) for pixels in images], return_tensors="pt")
    with torch.inference_mode():
        vectors = model.get_image_features(**inputs).pooler_output
    return torch.nn.functional.normalize(vectors).numpy()


def test_vectors_are_those_of_transformers(folder: Path, cpu: Device, noise: Noise) -> None:
    """Images of the model's size: the cosine to the reference is 1 but for rounding."""
    clip = load_clip(inspect(str(folder), "main", "clip"), cpu)
    images = noise(5, clip.resize.height)

    vectors = clip.embed(images)

    expected = reference(folder, images)
    assert vectors.shape == expected.shape
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * expected).sum(axis=1).min() > 0.9999


def test_a_batch_gives_what_one_by_one_gives(folder: Path, cpu: Device, noise: Noise) -> None:
    """The neighbours in a batch have no say."""
    clip = load_clip(inspect(str(folder), "main", "clip"), cpu)
    images = noise(3, clip.resize.height)

    alone = np.concatenate([clip.embed([pixels]) for pixels in images])

    assert (clip.embed(images) * alone).sum(axis=1).min() > 0.9999


def test_half_precision_is_near(folder: Path, cpu: Device, noise: Noise) -> None:
    """bfloat16, as on a GPU: float32 unit vectors all the same, near the reference."""
    device = Device(torch_device=torch.device("cpu"), dtype=torch.bfloat16)
    clip = load_clip(inspect(str(folder), "main", "clip"), device)
    images = noise(5, clip.resize.height)

    vectors = clip.embed(images)

    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * reference(folder, images)).sum(axis=1).min() > 0.999


def test_geometry_comes_from_the_processor(clip_folder: Path, cpu: Device) -> None:
    """What the decoder is told is what the processor's file says."""
    resize = load_clip(inspect(str(clip_folder), "main", "clip"), cpu).resize

    assert (resize.height, resize.width, resize.shortest_edge) == (32, 32, 32)
    assert resize.crop
    assert resize.resample == Image.Resampling.BICUBIC


def test_image_of_another_size_is_its_own_fault(
    clip_folder: Path, cpu: Device, noise: Noise
) -> None:
    """The error is one that the engine isolates, not one that ends the process."""
    clip = load_clip(inspect(str(clip_folder), "main", "clip"), cpu)

    with pytest.raises(ValueError, match="same shape"):
        clip.embed([*noise(1, 32), *noise(1, 16)])


def test_vector_that_is_not_finite_is_refused(
    clip_folder: Path, tmp_path: Path, cpu: Device, noise: Noise
) -> None:
    """Not a number is no direction: an overflow in half precision must not be published."""
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    clip = load_clip(inspect(str(folder), "main", "clip"), cpu)

    with pytest.raises(ValueError, match="not finite"):
        clip.embed(noise(1))
