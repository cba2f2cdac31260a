"""Checkpoints as people have them, through what `check` and the start do with them."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, CLIPModel

from consumer import parts
from consumer.inference.errors import ModelUnavailable
from consumer.pixels import Pixels
from consumer.probe import PICTURE, probe
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode
from schemas import Task
from tests.fakes import decoded

MODELS = Path(__file__).parents[2] / "examples/models"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return a copy of the tiny CLIP whose processor's file a test may rewrite."""
    folder = shutil.copytree(MODELS / "tiny-clip", tmp_path / "clip")
    whole = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    write_processor(folder, whole["image_processor"])
    return folder


def write_processor(folder: Path, processor: dict[str, object]) -> None:
    """Write the image processor's configuration, where older checkpoints have it."""
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def change_processor(folder: Path, **changes: object) -> None:
    """Change what the image processor is asked to do."""
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    write_processor(folder, processor | changes)


def settings_of(**changes: str) -> ConsumerSettings:
    """Return the settings of a consumer on the CPU."""
    return ConsumerSettings.from_env(
        {
            "SECRET_API_KEY": "correct horse battery staple 0123456789",
            "CLIP_MODEL": str(MODELS / "tiny-clip"),
            "BLIP_MODEL": str(MODELS / "tiny-blip"),
            "DECODE_PROCESSES": "1",
            "DEVICE": "cpu",
            **changes,
        }
    )


async def probed(
    clip: Path = MODELS / "tiny-clip", blip: Path = MODELS / "tiny-blip"
) -> tuple[str, Pixels]:
    """Open the models as at the start, and try them; return what is said, and CLIP's vector."""
    settings = settings_of(CLIP_MODEL=str(clip), BLIP_MODEL=str(blip))
    models = parts.open_models(settings)
    async with (
        parts.open_engine(settings, models) as engine,
        parts.open_decoder(settings) as decoder,
    ):
        said = await probe(engine, decoder, models.resizes)
        image = await decoded(decoder, PICTURE, models.resizes)
    return said, models.embedder.embed([image.pixels[Task.EMBED]])[0]


def reference(folder: Path) -> NDArray[np.float32]:
    """Return the picture's unit vector by transformers alone."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor(Image.open(io.BytesIO(PICTURE)).convert("RGB"), return_tensors="pt")
    with torch.inference_mode():
        vectors = model.get_image_features(**inputs).pooler_output
    return torch.nn.functional.normalize(vectors).numpy()[0]


@pytest.mark.parametrize(("changes", "most"), [({}, 32), ({"EMBED_BATCH": "5"}, 5)])
async def test_batch_is_not_measured_on_a_cpu(changes: dict[str, str], most: int) -> None:
    """Batches of all sizes would take seconds of each start there."""
    settings = settings_of(**changes)
    async with parts.open_engine(settings, parts.open_models(settings)) as engine:
        assert engine.queues["CLIP"].size.limit == most


async def test_picture_goes_the_way_of_a_record() -> None:
    """Decoded in its cage, embedded and captioned by both tiny models."""
    said, vector = await probed()

    assert said == (
        "a picture was decoded, embedded (64 numbers), "
        "captioned 'a large red circle on a white background'"
    )
    assert vector @ reference(MODELS / "tiny-clip") >= 0.9999


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"height": 64, "width": 64}},
        {"size": {"height": 80, "width": 96}},
        {"size": {"height": 64, "width": 64}, "do_center_crop": False},
        {"do_normalize": False},
    ],
    ids=str,
)
async def test_processor_of_another_geometry_is_followed(
    clip: Path, changes: dict[str, bool] | dict[str, dict[str, int]] | dict[str, object]
) -> None:
    """Whatever it says is done as transformers' own processor does it."""
    change_processor(clip, **changes)

    _, vector = await probed(clip)

    assert vector @ reference(clip) >= 0.9999


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"do_center_crop": False}, "does not crop"),
        (
            {"size": {"shortest_edge": 128}, "crop_size": {"height": 128, "width": 128}},
            "makes pictures of 128 x 128, the model takes 64 x 64",
        ),
    ],
    ids=["no crop", "too large"],
)
async def test_processor_that_spoils_every_picture_ends_the_start(
    clip: Path, changes: dict[str, bool] | dict[str, dict[str, int]], reason: str
) -> None:
    """With the code for checkpoints, before a record is taken."""
    change_processor(clip, **changes)

    with pytest.raises(ModelUnavailable, match=reason) as refused:
        await probed(clip)

    assert refused.value.code is ExitCode.MODEL


async def test_captioner_without_words_ends_the_start(tmp_path: Path) -> None:
    """Without its tokenizer's files all captions would be empty."""
    blip = shutil.copytree(MODELS / "tiny-blip", tmp_path / "blip")
    for path in blip.glob("*token*"):
        path.unlink()

    with pytest.raises(ModelUnavailable, match="has no tokenizer"):
        await probed(blip=blip)


async def test_captioner_that_ends_at_once_ends_the_start(tmp_path: Path) -> None:
    """Whole files, and nothing to say: the probe asks for a caption and gets none."""
    from safetensors.torch import load_file, save_file

    blip = shutil.copytree(MODELS / "tiny-blip", tmp_path / "blip")
    tensors = load_file(blip / "model.safetensors")
    [bias] = [name for name in tensors if name.endswith("cls.predictions.bias")]
    end = json.loads((blip / "config.json").read_text())["text_config"]["sep_token_id"]
    tensors[bias] = torch.full_like(tensors[bias], -1e4).index_fill(0, torch.tensor([end]), 1e4)
    save_file(tensors, blip / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelUnavailable, match="says nothing of a picture"):
        await probed(blip=blip)


def test_the_picture_is_one() -> None:
    """So that a fault of the probe is not taken for the model's."""
    assert np.asarray(Image.open(io.BytesIO(PICTURE)).convert("RGB")).shape == (72, 96, 3)
