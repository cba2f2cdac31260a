"""BLIP: pixels in, captions out. Comes when a caption is asked for, and goes when idle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip import BlipForConditionalGeneration

from consumer.inference.models.checkpoint import Checkpoint, load, preprocessing, unreadable
from consumer.inference.models.device import Device, device_errors
from consumer.inference.models.weights import Weights
from consumer.pixels import Pixels


class Blip:
    """A `Captioner`. Knows its image geometry at once; reads no weights before `load`."""

    def __init__(self, checkpoint: Checkpoint, device: Device, *, max_new_tokens: int) -> None:
        self.identity = checkpoint.identity
        self.resize, self._normalization = preprocessing(checkpoint, BlipImageProcessorPil)
        self._checkpoint = checkpoint
        self._device = device
        self._max_new_tokens = max_new_tokens
        self._tokenizer: Any = None
        self._weights = Weights("BLIP", self._read, device)

    def load(self) -> None:
        """Read weights and tokenizer into host memory.

        Raises:
            ModelUnavailable: they cannot be read, or are not whole.
        """
        self._weights.load()

    def to_device(self) -> None:
        """Copy the weights to the device, and caption one black image, which makes it warm."""
        self._weights.to_device()
        self.caption([np.zeros((self.resize.height, self.resize.width, 3), np.uint8)])

    @torch.inference_mode()
    def caption(self, images: Sequence[Pixels]) -> list[str]:
        """Return one greedy caption per image, of at most `max_new_tokens` tokens.

        Raises:
            DeviceOutOfMemory, DeviceFailed: see `device_errors`.
        """
        model = self._weights.model
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
        """Free everything, from whatever state."""
        self._tokenizer = None
        self._weights.unload()

    def _read(self) -> BlipForConditionalGeneration:
        model = load(self._checkpoint, BlipForConditionalGeneration, self._device.dtype)
        with unreadable(self._checkpoint.folder):
            self._tokenizer = AutoTokenizer.from_pretrained(
                self._checkpoint.folder, local_files_only=True
            )
        return model
