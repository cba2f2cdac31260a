"""Every model type that is taken, against transformers' own whole model, with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration
from transformers.models.git.modeling_git import GitForCausalLM

from consumer.errors import Failed
from consumer.inference.models.captioner import CAPTIONERS, GreedyCaptioner
from consumer.inference.models.checkpoint import MODEL_TYPES, Checkpoint, inspect
from consumer.inference.models.clip import load_clip
from consumer.inference.models.clip_text import ClipText
from consumer.inference.models.device import Device
from consumer.inference.models.towers import TOWERS
from schemas import Code
from tests.models import families
from tests.models.noise import Noise

EMBEDDERS = {
    "siglip": families.save_siglip,
    "siglip 2": families.save_siglip_2,
    "metaclip_2": families.save_metaclip_2,
}
SAVED_CAPTIONERS = {
    "blip-2": (families.save_blip_2, Blip2ForConditionalGeneration),
    "git": (families.save_git, GitForCausalLM),
}
TEXTS = ("a red car", "x", "two green stars on a black background")


def unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    """Return the vectors at length 1."""
    return torch.nn.functional.normalize(vectors).numpy()


def test_tables_are_those_that_a_refusal_lists() -> None:
    """What a line says is taken is what the tables have."""
    assert {"clip": tuple(TOWERS), "blip": tuple(CAPTIONERS)} == MODEL_TYPES


@pytest.fixture(params=EMBEDDERS, scope="module")
def embedder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """Return a checkpoint that embeds."""
    folder = tmp_path_factory.mktemp("checkpoint")
    EMBEDDERS[request.param](folder)
    return inspect(str(folder), "main", "clip")


def test_towers_alone_give_what_the_whole_model_gives(
    embedder: Checkpoint, cpu: Device, noise: Noise
) -> None:
    """Pictures and texts, in batches, to the cosine: each tower is loaded without the other."""
    clip, texts = load_clip(embedder, cpu), ClipText(embedder, cpu)
    texts.load()
    texts.to_device()
    images = noise(5, families.SIDE)
    whole = AutoModel.from_pretrained(embedder.folder).eval()
    processor = AutoImageProcessor.from_pretrained(embedder.folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(embedder.folder)
    padding = {"padding": "max_length", "max_length": 64} if embedder.model_type == "siglip" else {}
    inputs = processor([Image.fromarray(pixels) for pixels in images], return_tensors="pt")
    with torch.inference_mode():
        pictures = unit(whole.get_image_features(**inputs).pooler_output)
        ids = [tokenizer([text], return_tensors="pt", **padding)["input_ids"] for text in TEXTS]
        words = [whole.get_text_features(each).pooler_output for each in ids]

    ours = clip.embed(images)
    said = texts.embed_texts([texts.tokenize(text) for text in TEXTS])

    assert ours.shape[1] == said.shape[1]
    assert (ours * pictures).sum(axis=1).min() >= 0.9999
    assert (said * unit(torch.cat(words))).sum(axis=1).min() >= 0.9999
    assert np.abs(said[0] - said[2]).max() > 0.001


def test_too_long_a_text_is_refused_by_every_type(embedder: Checkpoint, cpu: Device) -> None:
    """Where texts are padded, too: the longest has no padding, and one more is too long."""
    texts = ClipText(embedder, cpu)
    marks = len([token for token in texts.tokenize("a") if token != texts.tokenize("a")[-1]])
    most = len(texts.tokenize("a")) if embedder.model_type == "siglip" else 40
    assert marks

    with pytest.raises(Failed) as failure:
        texts.tokenize("a" * most)

    assert failure.value.code is Code.TEXT_TOO_LONG
    assert f"the model takes {most}" in failure.value.message


@pytest.mark.parametrize("kind", SAVED_CAPTIONERS)
def test_captions_are_those_of_transformers(
    kind: str, tmp_path: Path, cpu: Device, noise: Noise
) -> None:
    """In a batch, the same words as the model's own `generate` gives one by one."""
    save, model_class = SAVED_CAPTIONERS[kind]
    save(tmp_path)
    captioner = GreedyCaptioner(inspect(str(tmp_path), "main", "blip"), cpu, max_new_tokens=8)
    captioner.load()
    captioner.to_device()
    images = noise(4, families.SIDE)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = model_class.from_pretrained(tmp_path, dtype=torch.float32).eval()  # type: ignore[attr-defined]
    expected = []
    for pixels in images:
        inputs = processor(Image.fromarray(pixels), return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, num_beams=1)
        expected.append(tokenizer.decode(tokens[0], skip_special_tokens=True).strip())  # type: ignore[union-attr]

    captions = captioner.caption(images)

    assert captions == expected
    assert len(set(captions)) > 1
