"""CLIP's text vectors, against transformers' own tokenizer and model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, CLIPModel

from benchmarks.checkpoints import VIT_B_32, save_random_clip
from consumer.errors import Failed
from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip_text import ClipText
from consumer.inference.models.device import Device
from schemas import Code

TINY = Path(__file__).parents[2] / "examples/models/tiny-clip"
TEXTS = (
    "a red car",
    "A RED CAR!",
    "two green stars on a black background",
    "x",
    "  white   space\tand\nlines ",
    "naïve café, 猫 and 🙂",
    "three pink squares",
)


@pytest.fixture(scope="session")
def vit_b_32_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CLIP of the size of ViT-B/32, with random weights."""
    folder = tmp_path_factory.mktemp("vit-b-32")
    save_random_clip(folder, VIT_B_32)
    return folder


@pytest.fixture(params=["random", "tiny", "ViT-B/32"])
def folder(request: pytest.FixtureRequest, clip_folder: Path) -> Path:
    """Return a checkpoint: random and small, the trained one of the examples, random and large."""
    if request.param == "ViT-B/32":
        return request.getfixturevalue("vit_b_32_folder")
    return clip_folder if request.param == "random" else TINY


def opened(folder: Path, device: Device) -> ClipText:
    """Return the text tower of a folder, ready."""
    tower = ClipText(inspect(str(folder), "main", "clip"), device)
    tower.load()
    tower.to_device()
    return tower


def reference(folder: Path, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
    """Return unit vectors by transformers alone, one by one, and how many tokens each has."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    vectors, lengths = [], []
    for text in texts:
        inputs = tokenizer([text], return_tensors="pt")
        lengths.append(inputs["input_ids"].shape[1])
        with torch.inference_mode():
            vectors.append(model.get_text_features(**inputs).pooler_output)
    return torch.nn.functional.normalize(torch.cat(vectors)).numpy(), lengths


def test_vectors_are_those_of_transformers(folder: Path, cpu: Device) -> None:
    """In one batch of texts of many lengths: the cosine to the reference is 1 but for rounding."""
    tower = opened(folder, cpu)
    tokens = [tower.tokenize(text) for text in TEXTS if folder != TINY or text.isascii()]
    expected, lengths = reference(folder, [t for t in TEXTS if folder != TINY or t.isascii()])

    vectors = tower.embed_texts(tokens)

    assert [len(ids) for ids in tokens] == lengths
    assert vectors.shape == expected.shape
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * expected).sum(axis=1).min() >= 0.9999


def test_half_precision_is_near(cpu: Device) -> None:
    """bfloat16, as on a GPU."""
    device = Device(torch_device=torch.device("cpu"), dtype=torch.bfloat16)
    tower = opened(TINY, device)
    texts = ["a red circle", "two green stars on a black background"]

    vectors = tower.embed_texts([tower.tokenize(text) for text in texts])

    assert (vectors * reference(TINY, texts)[0]).sum(axis=1).min() > 0.999


def test_too_many_tokens_are_refused_and_never_cut(clip_folder: Path, cpu: Device) -> None:
    """The longest text that fits is taken whole; one token more is `text_too_long`."""
    tower = ClipText(inspect(str(clip_folder), "main", "clip"), cpu)
    longest = "x" * (77 - 2)  # one token a letter, between the marks of start and end
    assert len(tower.tokenize(longest)) == 77

    with pytest.raises(Failed) as failure:
        tower.tokenize(longest + "x")

    assert failure.value.code is Code.TEXT_TOO_LONG
    assert failure.value.message == "78 tokens; the model takes 77"


def test_words_that_read_like_a_mark_are_words(clip_folder: Path, cpu: Device) -> None:
    """An end in the middle would cut the text there: the model looks for the first one."""
    tower = ClipText(inspect(str(clip_folder), "main", "clip"), cpu)

    tokens = tower.tokenize("a<|endoftext|>b")

    assert tokens.count(tokens[-1]) == 1


def test_tokenizer_of_another_model_is_refused(
    clip_folder: Path, tmp_path: Path, cpu: Device
) -> None:
    """Ids beyond the table of words would fail each text, and on a GPU the whole process."""
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 300
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelUnavailable, match=r"ids up to 599, its model 300 words"):
        ClipText(inspect(str(folder), "main", "clip"), cpu)


def test_end_that_the_tokenizer_does_not_write_is_refused(
    clip_folder: Path, tmp_path: Path, cpu: Device
) -> None:
    """All texts would have one vector: that of their start."""
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 17
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelUnavailable, match=r"does not end a text with the id 17"):
        ClipText(inspect(str(folder), "main", "clip"), cpu)


def test_missing_tokenizer_is_refused(clip_folder: Path, tmp_path: Path, cpu: Device) -> None:
    """At start, not at the first text."""
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    for path in folder.glob("*token*"):
        path.unlink()

    with pytest.raises(ModelUnavailable):
        ClipText(inspect(str(folder), "main", "clip"), cpu)


def test_unload_works_from_any_state(clip_folder: Path, cpu: Device) -> None:
    """Before a load, after one, twice."""
    tower = ClipText(inspect(str(clip_folder), "main", "clip"), cpu)
    tower.unload()
    tower.load()
    tower.unload()
    tower.unload()

    with pytest.raises(ModelUnavailable):
        tower.to_device()
