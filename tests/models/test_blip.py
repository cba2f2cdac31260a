"""BLIP's captions, against transformers' own processor and model."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.processing_blip import BlipProcessor

from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.blip_attention import fuse_attention
from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.device import Device
from consumer.pixels import Pixels
from tests.models.noise import Noise

TINY = Path(__file__).parents[2] / "examples/models/tiny-blip"
MAX_NEW_TOKENS = 12


@pytest.fixture(params=["random", "tiny"])
def folder(request: pytest.FixtureRequest, blip_folder: Path) -> Path:
    """Return a checkpoint: one with random weights, and the trained one of the examples."""
    return blip_folder if request.param == "random" else TINY


@pytest.fixture
def make_blip(cpu: Device) -> Callable[..., GreedyCaptioner]:
    """Return a function that makes a BLIP of a folder, not loaded."""

    def make(folder: Path, max_new_tokens: int = MAX_NEW_TOKENS) -> GreedyCaptioner:
        return GreedyCaptioner(
            inspect(str(folder), "main", "blip"), cpu, max_new_tokens=max_new_tokens
        )

    return make


def reference(folder: Path, images: Sequence[Pixels]) -> list[str]:
    """Return captions by transformers alone, one by one."""
    pil = BlipImageProcessorPil.from_pretrained(folder)
    tokenizer = BlipProcessor.from_pretrained(folder).tokenizer
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    captions = []
    for pixels in images:
        inputs = pil(Image.fromarray(pixels), return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
        captions.append(tokenizer.decode(tokens[0], skip_special_tokens=True))
    return captions


def test_captions_are_those_of_transformers(
    folder: Path, make_blip: Callable[..., GreedyCaptioner], noise: Noise
) -> None:
    """In a batch, the same words as the reference says one by one."""
    blip = make_blip(folder)
    images = noise(6, blip.resize.height)
    blip.load()
    blip.to_device()

    captions = blip.caption(images)

    assert captions == reference(folder, images)
    assert len(set(captions)) > 1


def test_attention_is_fused_everywhere(
    folder: Path, make_blip: Callable[..., GreedyCaptioner]
) -> None:
    """No layer of either tower computes as transformers' eager one does."""
    blip = make_blip(folder)
    blip.load()

    kinds = [type(module).__name__ for module in blip._weights.model.modules()]

    assert "FusedVisionAttention" in kinds
    assert "FusedTextAttention" in kinds
    assert not {"BlipAttention", "BlipTextSelfAttention"} & set(kinds)


@pytest.mark.parametrize("with_cache", [True, False])
def test_fused_logits_are_those_of_eager_attention(
    folder: Path, noise: Noise, with_cache: bool
) -> None:
    """Every step of a caption, not only its words: the logits differ by rounding alone."""
    eager = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    fused = copy.deepcopy(eager)
    fuse_attention(fused)
    side = eager.config.vision_config.image_size
    pixels = torch.from_numpy(np.stack(noise(4, side))).permute(0, 3, 1, 2) / 255

    with torch.inference_mode():
        steps = [
            model.generate(
                pixel_values=pixels,
                max_new_tokens=MAX_NEW_TOKENS,
                use_cache=with_cache,
                output_logits=True,
                return_dict_in_generate=True,
            )
            for model in (eager, fused)
        ]

    assert torch.equal(steps[0].sequences, steps[1].sequences)
    for expected, logits in zip(steps[0].logits, steps[1].logits, strict=True):
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_captions_are_the_same_after_a_reload(
    folder: Path, make_blip: Callable[..., GreedyCaptioner], noise: Noise
) -> None:
    """Unloaded and loaded again, it says the same."""
    blip = make_blip(folder)
    images = noise(3, blip.resize.height)
    captions = []
    for _ in range(2):
        blip.load()
        blip.to_device()
        captions.append(blip.caption(images))
        blip.unload()

    assert captions[0] == captions[1]


def test_caption_length_is_bounded(
    blip_folder: Path, make_blip: Callable[..., GreedyCaptioner], noise: Noise
) -> None:
    """`max_new_tokens` holds whatever the folder's generation settings say."""
    blip = make_blip(blip_folder, max_new_tokens=3)
    blip.load()
    blip.to_device()

    captions = blip.caption(noise(4))

    assert max(len(caption.split()) for caption in captions) <= 3


def test_geometry_is_known_before_loading(
    blip_folder: Path, make_blip: Callable[..., GreedyCaptioner]
) -> None:
    """Decoding begins while the weights are still on the disk: no crop, whatever the shape."""
    resize = make_blip(blip_folder).resize

    assert (resize.height, resize.width, resize.crop) == (32, 32, False)
    assert resize.resample == Image.Resampling.BICUBIC


def test_unload_works_from_any_state(
    blip_folder: Path, make_blip: Callable[..., GreedyCaptioner]
) -> None:
    """Before a load, after one, twice."""
    blip = make_blip(blip_folder)
    blip.unload()
    blip.load()
    blip.unload()
    blip.unload()

    with pytest.raises(ModelUnavailable):
        blip.to_device()


def test_weights_gone_since_start_up(
    blip_folder: Path, make_blip: Callable[..., GreedyCaptioner], tmp_path: Path
) -> None:
    """Files that vanish between start-up and the first caption fail the load, not the process."""
    folder = tmp_path / "blip"
    folder.mkdir()
    for path in blip_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    blip = make_blip(folder)
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelUnavailable, match=str(folder)):
        blip.load()
