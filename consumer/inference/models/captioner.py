"""Captioners, on demand: pixels in, captions out. One more model type is one more table entry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.models.blip.modeling_blip import BlipForConditionalGeneration
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration
from transformers.models.git.modeling_git import GitForCausalLM

from consumer.inference.models.blip_attention import fuse_attention
from consumer.inference.models.checkpoint import Checkpoint, load, unreadable
from consumer.inference.models.device import Device, device_errors
from consumer.inference.models.preprocessing import preprocessing
from consumer.inference.models.tokenizer import open_tokenizer
from consumer.inference.models.weights import Weights
from consumer.outcome import ModelIdentity
from consumer.pixels import Pixels

DEFAULT_MAX_TOKENS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioning:
    """A model type's class, and the part of its configuration with the vocabulary ("": the top).

    Every type captions without a prompt.
    """

    model: type[PreTrainedModel]
    vocabulary_in: str

    def vocabulary(self, config: Any) -> int:
        """Return how many words the model has."""
        part = getattr(config, self.vocabulary_in) if self.vocabulary_in else config
        words: int = part.vocab_size
        return words


CAPTIONERS: Final = {
    "blip": Captioning(model=BlipForConditionalGeneration, vocabulary_in="text_config"),
    "blip-2": Captioning(model=Blip2ForConditionalGeneration, vocabulary_in="text_config"),
    "git": Captioning(model=GitForCausalLM, vocabulary_in=""),
}


class GreedyCaptioner:
    """A `Captioner`; reads no weights before `load`."""

    def __init__(
        self, checkpoint: Checkpoint, device: Device, *, max_new_tokens: int = DEFAULT_MAX_TOKENS
    ) -> None:
        """Read configuration, image processor and tokenizer.

        Raises:
            ModelUnavailable: they cannot be read, or do not belong together.
        """
        self._captioning = CAPTIONERS[checkpoint.model_type]
        self._checkpoint = checkpoint
        self._device = device
        self._max_new_tokens = max_new_tokens
        with unreadable(checkpoint.folder):
            config: Any = AutoConfig.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
            image_size, words = config.vision_config.image_size, self._captioning.vocabulary(config)
        self.identity = _identity(checkpoint, max_new_tokens)
        self.resize, self._normalization = preprocessing(checkpoint, image_size)
        self._tokenizer = open_tokenizer(checkpoint, words)
        self._weights = Weights("BLIP", self._read, device)

    def load(self) -> None:
        """Read the weights into host memory."""
        self._weights.load()

    def to_device(self) -> None:
        """Copy the weights to the device, and caption one black image to warm them up."""
        self._weights.to_device()
        self.caption([np.zeros((self.resize.height, self.resize.width, 3), np.uint8)])

    @torch.inference_mode()
    def caption(self, images: Sequence[Pixels]) -> list[str]:
        """Return one greedy caption per image, of at most `max_new_tokens` tokens."""
        model: Any = self._weights.model
        with device_errors():
            tokens = model.generate(
                pixel_values=self._normalization.apply(images, self._device),
                max_new_tokens=self._max_new_tokens,
                num_beams=1,
                do_sample=False,
            ).cpu()
        texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def offload(self) -> None:
        """Free the device; the weights stay in host memory."""
        self._weights.offload()

    def unload(self) -> None:
        """Free everything, from any state."""
        self._weights.unload()

    def _read(self) -> PreTrainedModel:
        model = load(self._checkpoint, self._captioning.model, self._device.dtype)
        fuse_attention(model)
        return model


def _identity(checkpoint: Checkpoint, max_new_tokens: int) -> ModelIdentity:
    """Return the identity of a caption's maker; a setting that changes captions is part of it."""
    identity = checkpoint.identity
    if max_new_tokens == DEFAULT_MAX_TOKENS:
        return identity
    revision = f"{identity.revision}+max_new_tokens={max_new_tokens}"
    return ModelIdentity(model=identity.model, revision=revision)
