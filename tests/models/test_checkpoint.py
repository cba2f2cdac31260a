"""A checkpoint is loaded whole or not at all, and the refusal says which and why, in one line."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from transformers.models.clip.configuration_clip import CLIPConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect, load
from consumer.inference.models.clip import load_clip
from consumer.inference.models.clip_text import ClipText
from consumer.inference.models.device import Device
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode


@pytest.fixture
def copied(clip_folder: Path, tmp_path: Path) -> Path:
    """Return a CLIP checkpoint that the test may damage."""
    return shutil.copytree(clip_folder, tmp_path / "clip")


@pytest.fixture
def copied_blip(blip_folder: Path, tmp_path: Path) -> Path:
    """Return a BLIP checkpoint that the test may damage."""
    return shutil.copytree(blip_folder, tmp_path / "blip")


def change_config(folder: Path, **changes: object) -> None:
    """Change fields at the top of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite the weights after `change` had its way with the mapping of tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(folder: Path, kind: Literal["clip", "blip"] = "clip") -> str:
    """Return the one line that says why the folder is refused."""
    with pytest.raises(ModelUnavailable) as refused:
        inspect(str(folder), "main", kind)
    assert refused.value.code is ExitCode.MODEL
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    """A path that is no folder is not taken for a hub id."""
    assert "no such folder" in refusal(tmp_path / "nothing")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    """The first file that is missing is named."""
    assert "config.json" in refusal(tmp_path)


def test_broken_json_is_refused(copied: Path) -> None:
    """A configuration that is no JSON."""
    (copied / "config.json").write_text("{")

    assert "config.json" in refusal(copied)


def test_folder_without_weights_is_refused(copied: Path) -> None:
    """Another format beside the configuration is not read."""
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")

    assert "no model.safetensors" in refusal(copied)


@pytest.mark.parametrize("length", [0, 5, 100, 20_000, -1])
def test_truncated_weights_are_refused(copied: Path, length: int) -> None:
    """Cut in the length, in the header, in the tensors, or one byte before the end."""
    path = copied / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:length])

    assert "model.safetensors cannot be read" in refusal(copied)


def test_weights_that_are_no_safetensors_are_refused(copied: Path) -> None:
    """Bytes of another kind under the right name."""
    (copied / "model.safetensors").write_bytes(b"\x80\x04pickle" * 1000)

    assert "model.safetensors cannot be read" in refusal(copied)


@pytest.mark.parametrize(("kind", "other"), [("clip", "blip"), ("blip", "clip")])
def test_model_of_the_other_kind_is_refused(
    request: pytest.FixtureRequest, kind: Literal["clip", "blip"], other: str
) -> None:
    """CLIP's folder as BLIP and the reverse; the message says what it is."""
    folder = request.getfixturevalue(f"{other}_folder")

    message = refusal(folder, kind)

    known = {"clip": "clip, siglip, metaclip_2", "blip": "blip, blip-2, git"}
    assert f"model_type {other!r}; {kind.upper()}_MODEL takes {known[kind]}" in message


def test_configuration_without_processor_is_refused(copied: Path, cpu: Device) -> None:
    """Without the image processor's file the geometry is unknown."""
    (copied / "preprocessor_config.json").unlink()

    with pytest.raises(ModelUnavailable, match="cannot be read"):
        load_clip(inspect(str(copied), "main", "clip"), cpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_missing_tensor_is_refused(copied: Path, dtype: torch.dtype) -> None:
    """Otherwise random numbers would stand in its place, and every vector would be noise."""
    change_weights(copied, lambda tensors: tensors.pop("visual_projection.weight"))
    checkpoint = inspect(str(copied), "main", "clip")

    config = CLIPConfig.from_pretrained(copied).vision_config
    assert isinstance(config, CLIPVisionConfig)
    with pytest.raises(ModelUnavailable, match=r"lacks 1 tensors .* visual_projection.weight"):
        load(checkpoint, CLIPVisionModelWithProjection, dtype, config)


def test_tensor_of_another_shape_is_refused(copied: Path, cpu: Device) -> None:
    """A configuration that is not that of the weights."""
    change_weights(
        copied, lambda tensors: tensors.update({"visual_projection.weight": torch.zeros(32, 63)})
    )

    with pytest.raises(ModelUnavailable, match=r"lacks 1 tensors .* visual_projection.weight"):
        load_clip(inspect(str(copied), "main", "clip"), cpu)


def test_blip_with_a_missing_tensor_is_refused_when_loaded(copied_blip: Path, cpu: Device) -> None:
    """BLIP's weights are looked at on the first caption, and refused then."""
    change_weights(copied_blip, lambda tensors: tensors.pop("vision_model.post_layernorm.weight"))
    blip = GreedyCaptioner(inspect(str(copied_blip), "main", "blip"), cpu, max_new_tokens=5)

    with pytest.raises(ModelUnavailable, match=r"post_layernorm.weight"):
        blip.load()


def test_configuration_of_nonsense_is_refused(copied: Path, cpu: Device) -> None:
    """A configuration that is JSON and CLIP's, but of no model that can be."""
    change_config(copied, vision_config={"hidden_size": "many"})

    with pytest.raises(ModelUnavailable, match=str(copied)):
        load_clip(inspect(str(copied), "main", "clip"), cpu)


def change_processor(folder: Path, **changes: object) -> None:
    """Change what the image processor is asked to do."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SIDES = {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"do_center_crop": False}, "resizes to shortest_edge 32 and does not crop"),
        (
            {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
            "makes pictures of 64 x 64, the model takes 32 x 32",
        ),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "which is not made here"),
        ({"size": {"longest_edge": 64}, "do_center_crop": False}, "does not crop"),
        ({"do_resize": False}, "does not resize"),
        ({"do_pad": True, "pad_size": SIDES}, "pads"),
        ({"image_processor_type": "FlavaImageProcessor"}, "a way of its own"),
        ({"image_mean": [0.5]}, "1 channels, not 3"),
        ({"image_processor_type": "NoImageProcessor"}, "cannot be read"),
    ],
    ids=str,
)
def test_pictures_that_are_not_made_here_are_refused(
    copied: Path, cpu: Device, changes: dict[str, object], reason: str
) -> None:
    """At start, by what is asked for: no picture would be as the model was trained."""
    change_processor(copied, **changes)

    with pytest.raises(ModelUnavailable) as refused:
        load_clip(inspect(str(copied), "main", "clip"), cpu)

    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_model_that_was_made_for_answers_is_no_captioner(copied_blip: Path, cpu: Device) -> None:
    """A BLIP of visual questions has all that a captioner has, and an encoder of questions."""
    question = {"text_encoder.embeddings.word_embeddings.weight": torch.zeros(3, 3)}
    change_weights(copied_blip, lambda tensors: tensors.update(question))
    blip = GreedyCaptioner(inspect(str(copied_blip), "main", "blip"), cpu)

    with pytest.raises(ModelUnavailable, match=r"made for something else: .* text_encoder"):
        blip.load()


def test_captioner_without_a_tokenizer_is_refused(copied_blip: Path) -> None:
    """It would caption every picture with nothing."""
    for path in copied_blip.glob("*token*"):
        path.unlink()

    assert "has no tokenizer" in refusal(copied_blip, "blip")


def test_captioner_with_the_tokenizer_of_another_is_refused(copied_blip: Path, cpu: Device) -> None:
    """Its words would not be those that the model means."""
    (copied_blip / "tokenizer.json").unlink()
    (copied_blip / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")

    with pytest.raises(ModelUnavailable, match=r"tokenizer has ids up to 5, its model 602 words"):
        GreedyCaptioner(inspect(str(copied_blip), "main", "blip"), cpu)


def test_settings_of_a_caption_are_part_of_who_made_it(blip_folder: Path, cpu: Device) -> None:
    """Captions of other lengths are not of one kind; the default's are named by the commit."""
    checkpoint = inspect(str(blip_folder), "main", "blip")
    default = ConsumerSettings.model_fields["caption_max_tokens"].default

    usual = GreedyCaptioner(checkpoint, cpu, max_new_tokens=default)
    short = GreedyCaptioner(checkpoint, cpu, max_new_tokens=7)

    assert usual.identity == checkpoint.identity
    assert short.identity.revision == f"{checkpoint.identity.revision}+max_new_tokens=7"


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of a hub cache, with the hub itself out of reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_hub_that_cannot_be_reached_is_named(hub_cache: Path) -> None:
    """A hub id that is not in the cache gives one line that says what to check."""
    with pytest.raises(ModelUnavailable) as refused:
        inspect("nobody/no-such-model", "main", "clip")

    assert "nobody/no-such-model at main cannot be had from the hub" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_libraries_print_nothing_beside_the_log(
    hub_cache: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What they warn of reaches the root logger, once: there it is JSON where the log is."""
    with pytest.raises(ModelUnavailable):
        inspect("nobody/no-such-model", "main", "clip")

    for library in ("huggingface_hub", "transformers"):
        logging.getLogger(library).error("a word of %s", library)
    assert capfd.readouterr().err == ""
    assert [record.getMessage() for record in caplog.records] == [
        "a word of huggingface_hub",
        "a word of transformers",
    ]


def test_revision_from_the_hub_is_the_commit(
    hub_cache: Path, clip_folder: Path, cpu: Device
) -> None:
    """`main` moves, so the commit is named; the cache serves where the hub does not."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    stored = hub_cache / "models--some--clip"
    shutil.copytree(clip_folder, stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)

    with capture_logs() as lines:
        checkpoint = inspect("some/clip", "main", "clip")

    assert [line["event"] for line in lines] == [
        "checkpoint asked of the hub",
        "checkpoint is here",
    ]
    assert lines[1]["commit"] == commit
    assert checkpoint.identity.model == "some/clip"
    assert checkpoint.identity.revision == commit
    assert load_clip(checkpoint, cpu).resize.height == 32


def test_revision_of_a_folder_follows_the_weights(copied: Path, clip_folder: Path) -> None:
    """The same files anywhere have the same revision; a trained tensor changes it."""
    original = inspect(str(clip_folder), "main", "clip").identity.revision
    assert inspect(str(copied), "main", "clip").identity.revision == original

    change_weights(copied, lambda tensors: tensors["visual_projection.weight"].add_(0.01))

    changed = inspect(str(copied), "main", "clip").identity.revision
    assert changed != original
    assert changed.startswith("sha256-")


def test_nothing_is_printed(
    clip_folder: Path, cpu: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    """No progress bar and no loading report on anybody's terminal."""
    load_clip(inspect(str(clip_folder), "main", "clip"), cpu)

    assert capfd.readouterr() == ("", "")


def test_two_models_are_loaded_at_once_and_whole(
    clip_folder: Path, blip_folder: Path, cpu: Device
) -> None:
    """A text and a caption that come together load two models, each in a thread of its own."""
    texts = ClipText(inspect(str(clip_folder), "main", "clip"), cpu)
    blip = GreedyCaptioner(inspect(str(blip_folder), "main", "blip"), cpu, max_new_tokens=4)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            for load in [threads.submit(model.load) for model in (texts, blip)]:
                load.result()
            texts.unload()
            blip.unload()
