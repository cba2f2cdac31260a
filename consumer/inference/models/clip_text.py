"""The text tower, on demand: texts in, unit vectors out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from consumer.errors import Failed
from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.checkpoint import Checkpoint, load, unreadable
from consumer.inference.models.device import Device, device_errors, unit_vectors
from consumer.inference.models.tokenizer import open_tokenizer
from consumer.inference.models.towers import TOWERS, vectors_of
from consumer.inference.models.weights import Weights
from consumer.inference.ports import Tokens
from schemas import Code


class ClipText:
    """A `TextEmbedder`; reads no weights before `load`."""

    def __init__(self, checkpoint: Checkpoint, device: Device) -> None:
        """Read configuration and tokenizer.

        Raises:
            ModelUnavailable: they cannot be read, or do not belong together.
        """
        self.identity = checkpoint.identity
        self._checkpoint = checkpoint
        self._device = device
        self._towers = TOWERS[checkpoint.model_type]
        _, self._config = self._towers.configs(checkpoint)
        self._tokenizer = open_tokenizer(checkpoint, self._config.vocab_size)
        with unreadable(checkpoint.folder):
            self._check_end()
        self._weights = Weights("CLIP's text tower", self._read, device)

    def tokenize(self, text: str) -> Tokens:
        """Return the tokens of a text, between the marks for start and end."""
        # `split_special_tokens`: an end mark that the text itself spells would cut it there.
        most = self._config.max_position_embeddings
        padding = {"padding": "max_length", "max_length": most} if self._towers.pads else {}
        tokens = self._tokenizer(
            text, truncation=False, split_special_tokens=True, verbose=False, **padding
        )["input_ids"]
        if len(tokens) > most:
            raise Failed(Code.TEXT_TOO_LONG, f"{len(tokens)} tokens; the model takes {most}")
        return tuple(tokens)

    def load(self) -> None:
        """Read the weights into host memory."""
        self._weights.load()

    def to_device(self) -> None:
        """Copy the weights to the device, and embed one text to warm them up."""
        self._weights.to_device()
        self.embed_texts([self.tokenize("a")])

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Return unit vectors, shape (texts, dim), float32.

        Raises:
            ValueError: a vector is not finite.
        """
        longest = max(map(len, texts))
        # The padding has no effect: each token sees the ones before it alone, and the vector is
        # that of the first end mark. Types that see the padding come with one length.
        padded = [[*tokens, *tokens[-1:] * (longest - len(tokens))] for tokens in texts]
        with device_errors():
            ids = torch.tensor(padded, device=self._device.torch_device)
            output = self._weights.model(input_ids=ids)
            return unit_vectors(vectors_of(output, self._towers.text_output))

    def offload(self) -> None:
        """Free the device; the weights stay in host memory."""
        self._weights.offload()

    def unload(self) -> None:
        """Free everything, from any state."""
        self._weights.unload()

    def _read(self) -> PreTrainedModel:
        return load(self._checkpoint, self._towers.text, self._device.dtype, self._config)

    def _check_end(self) -> None:
        """Refuse a tokenizer without the tower's end mark: all vectors would be the same."""
        end = self._towers.end(self._config)
        if end is not None and self.tokenize("a")[-1] != end:
            raise ModelUnavailable(
                f"{self.identity.model}: its tokenizer does not end a text with the id {end} that "
                "its text tower looks for; download or save the checkpoint again"
            )
