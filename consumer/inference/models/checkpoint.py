"""A checkpoint on disk: found or downloaded, checked, and loaded whole or not at all.

Safetensors only, and no remote code, so no checkpoint runs code of its own here. transformers fills
missing tensors with random weights and prints a report; `load` refuses such a checkpoint. A folder
has no commit, so its revision is a digest of its configuration and of the first values of every
tensor: no training leaves all of those unchanged.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import structlog
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from consumer.inference.errors import ModelUnavailable
from consumer.outcome import ModelIdentity

log = structlog.get_logger()

# The model types of each setting; `TOWERS` and `CAPTIONERS` have an entry for each.
MODEL_TYPES: Final[Mapping[str, Sequence[str]]] = {
    "clip": ("clip", "siglip", "metaclip_2"),
    "blip": ("blip", "blip-2", "git"),
}
_CHATTY: Final = ("huggingface_hub", "transformers")  # libraries with log handlers of their own
_SMALL_FILES: Final = ("*.json", "*.txt", "*.model")
_TOKENIZERS: Final = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
_WEIGHTS: Final = ("model.safetensors", "model-*-of-*.safetensors")
_SAMPLE_VALUES: Final = 256  # of each tensor
# The libraries' errors for files that they cannot read.
_UNREADABLE: Final = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,  # a tokenizer's class needs a library that is not installed
    MemoryError,
    SafetensorError,
    StrictDataclassError,
)

# Buffers, no weights: older versions saved them, and the model makes its own.
_BUFFER: Final = re.compile(r"(position_ids|inv_freq|attn\.bias|masked_bias)$")
_LOADING: Final = threading.Lock()

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checked folder; the weights' values alone are not checked."""

    folder: Path
    identity: ModelIdentity
    model_type: str


def inspect(model: str, revision: str, kind: Literal["clip", "blip"]) -> Checkpoint:
    """Find `model`, a folder or a hub id, and check it as far as possible without loading it.

    A hub id is downloaded with its weights, unless the cache has them: a later `load` needs the
    disk alone.

    Raises:
        ModelUnavailable: it is missing, incomplete, unreadable, or of another kind.
    """
    _silence()
    is_folder = Path(model).is_dir()
    folder = Path(model) if is_folder else _download(model, revision)
    config = folder / "config.json"
    with unreadable(config):
        found = json.loads(config.read_bytes()).get("model_type")
    if found not in MODEL_TYPES[kind]:
        raise ModelUnavailable(
            f"{model}: its config.json says model_type {found!r}; {kind.upper()}_MODEL takes "
            f"{', '.join(MODEL_TYPES[kind])}"
        )
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise ModelUnavailable(
            f"{model} has no tokenizer ({', '.join(_TOKENIZERS)}); save it beside the model"
        )
    digest = _digest(folder, _weights(folder, model))
    commit = f"sha256-{digest[:16]}" if is_folder else folder.name
    identity = ModelIdentity(model=model, revision=commit)
    return Checkpoint(folder=folder, identity=identity, model_type=found)


def load(
    checkpoint: Checkpoint,
    model_class: type[Model],
    dtype: torch.dtype,
    config: PreTrainedConfig | None = None,
) -> Model:
    """Read the weights into host memory, mapped from the file where the dtype is the file's.

    `config` selects a part of the checkpoint; without it all of the checkpoint is loaded.

    Raises:
        ModelUnavailable: a tensor is missing, of another shape or without a place in the model, or
            the files cannot be read.
    """
    # transformers keeps process-wide state while it loads: two loads at once lose tensors.
    with _LOADING, unreadable(checkpoint.folder):
        loaded: Any = model_class.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the report has them, and they are refused below by name
            output_loading_info=True,
        )
    model: Model = loaded[0]
    report = loaded[1]
    absent = sorted(report["missing_keys"]) + [key for key, *_ in report["mismatched_keys"]]
    if absent:
        raise ModelUnavailable(
            f"{checkpoint.identity.model} lacks {len(absent)} tensors of the shape that its "
            f"config.json calls for, such as {absent[0]}; download or save the checkpoint again"
        )
    strange = sorted(key for key in report["unexpected_keys"] if not _BUFFER.search(key))
    if strange and config is None:
        raise ModelUnavailable(
            f"{checkpoint.identity.model} was made for something else: {model_class.__name__} has "
            f"no place for {len(strange)} of its tensors, such as {strange[0]}"
        )
    return model


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Translate the errors of a file or folder that cannot be used."""
    try:
        yield
    except _UNREADABLE as exc:
        raise ModelUnavailable(
            f"{path} cannot be read ({_in_one_line(exc)}); download or save the checkpoint again"
        ) from exc


def _download(model: str, revision: str) -> Path:
    if model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise ModelUnavailable(f"{model}: there is no such folder")
    # The next line may be minutes away; this one says what the program waits for.
    log.info("checkpoint asked of the hub", model=model, revision=revision)
    start = time.monotonic()
    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=[*_SMALL_FILES, *_WEIGHTS]
        )
    except (RepositoryNotFoundError, HFValidationError) as exc:
        raise ModelUnavailable(
            f"{model} is neither a folder here nor a model that the hub shows to this account"
        ) from exc
    except OSError as exc:
        raise ModelUnavailable(
            f"{model} at {revision} cannot be had from the hub and is not in its cache "
            f"({_first_line(exc)}); check the network and the revision, or name a folder"
        ) from exc
    seconds = round(time.monotonic() - start, 1)
    log.info("checkpoint is here", model=model, commit=Path(folder).name, seconds=seconds)
    return Path(folder)


def _silence() -> None:
    """Keep the libraries from printing: no progress bars, no reports, no lines beside the log's."""
    disable_progress_bars()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    for library in _CHATTY:
        logger = logging.getLogger(library)
        logger.handlers.clear()  # theirs has another format
        logger.propagate = True


def _weights(folder: Path, model: str) -> list[Path]:
    files = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not files:
        raise ModelUnavailable(
            f"{model} has no model.safetensors, and other formats are not read; save it with "
            "save_pretrained, or name a revision that has one"
        )
    return files


def _digest(folder: Path, weights: list[Path]) -> str:
    digest = sha256((folder / "config.json").read_bytes())
    for path in weights:
        # `safe_open` checks the header, and the file's length against it.
        with unreadable(path), safe_open(path, "pt") as file:
            for name in file.offset_keys():
                tensor = file.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
                digest.update(tensor.flatten()[:_SAMPLE_VALUES].view(torch.uint8).numpy())
    return digest.hexdigest()


def _in_one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removeprefix("Got: ")[:200]
