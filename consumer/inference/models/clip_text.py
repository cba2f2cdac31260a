"""CLIP's text tower: texts in, unit vectors out. Comes with the first text, and goes when idle."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer
from transformers.models.clip.configuration_clip import CLIPConfig
from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

from consumer.errors import Failed
from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.checkpoint import Checkpoint, load, unreadable
from consumer.inference.models.device import Device, device_errors, unit_vectors
from consumer.inference.models.weights import Weights
from consumer.inference.ports import Tokens
from schemas import Code

# What CLIP's first configurations say: the model then takes the highest id for the end.
_LEGACY_END: Final = 2


class ClipText:
    """A `TextEmbedder`. Has its tokenizer at once; reads no weights before `load`."""

    def __init__(self, checkpoint: Checkpoint, device: Device) -> None:
        """Read configuration and tokenizer.

        Raises:
            ModelUnavailable: they cannot be read, or do not belong together.
        """
        self.identity = checkpoint.identity
        self._checkpoint = checkpoint
        self._device = device
        with unreadable(checkpoint.folder):
            whole: Any = CLIPConfig.from_pretrained(checkpoint.folder, local_files_only=True)
            self._config: Any = whole.text_config
            # The whole model goes by its own width of the vectors, whatever the tower's says.
            self._config.projection_dim = whole.projection_dim
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True
            )
            self._check_tokenizer()
        self._weights = Weights("CLIP's text tower", self._read, device)

    def tokenize(self, text: str) -> Tokens:
        """Return the tokens of a text, between the marks for start and end.

        Raises:
            Failed: `text_too_long`, more tokens than the model takes; nothing is cut off.
        """
        # Words that read like a mark are words: an end in the middle would cut the text there.
        tokens = self._tokenizer(text, split_special_tokens=True)["input_ids"]
        most = self._config.max_position_embeddings
        if len(tokens) > most:
            raise Failed(Code.TEXT_TOO_LONG, f"{len(tokens)} tokens; the model takes {most}")
        return tuple(tokens)

    def load(self) -> None:
        """Read the weights into host memory.

        Raises:
            ModelUnavailable: they cannot be read, or are not whole.
        """
        self._weights.load()

    def to_device(self) -> None:
        """Copy the weights to the device, and embed one text, which makes it warm."""
        self._weights.to_device()
        self.embed_texts([self.tokenize("a")])

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Return unit vectors, shape (texts, dim), float32.

        Raises:
            ValueError: a vector is not finite.
            DeviceOutOfMemory, DeviceFailed: see `device_errors`.
        """
        longest = max(map(len, texts))
        # The model looks back only and takes the first end, so what follows that has no say.
        padded = [[*tokens, *tokens[-1:] * (longest - len(tokens))] for tokens in texts]
        with device_errors():
            ids = torch.tensor(padded, device=self._device.torch_device)
            return unit_vectors(self._weights.model(input_ids=ids).text_embeds)

    def offload(self) -> None:
        """Free the device; the weights stay in host memory."""
        self._weights.offload()

    def unload(self) -> None:
        """Free everything, from whatever state."""
        self._weights.unload()

    def _read(self) -> CLIPTextModelWithProjection:
        return load(self._checkpoint, CLIPTextModelWithProjection, self._device.dtype, self._config)

    def _check_tokenizer(self) -> None:
        """Refuse a tokenizer of another model: its ids would fail, or mean something else."""
        model, highest = self.identity.model, max(self._tokenizer.get_vocab().values())
        if highest >= self._config.vocab_size:
            raise ModelUnavailable(
                f"{model}: its tokenizer has ids up to {highest}, its text tower "
                f"{self._config.vocab_size} words; download or save the checkpoint again"
            )
        end = self._config.eos_token_id
        if end != _LEGACY_END and self.tokenize("a")[-1] != end:
            raise ModelUnavailable(
                f"{model}: its tokenizer does not end a text with the id {end} that its text "
                "tower looks for; download or save the checkpoint again"
            )
