"""BLIP: pixels in, captions out. Comes when a caption is asked for, and goes when idle."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip import BlipForConditionalGeneration

from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.checkpoint import Checkpoint, load, preprocessing, unreadable
from consumer.inference.models.device import Device, device_errors, free_memory
from consumer.pixels import Pixels


@dataclass(slots=True)
class _Loaded:
    """What is in memory. `host` keeps the host's copy of every tensor while the device has its own.

    Weights do not change, so leaving the device needs no copy: the host's are put back.
    """

    model: BlipForConditionalGeneration
    tokenizer: Any
    host: list[torch.Tensor]

    def tensors(self) -> Iterator[torch.Tensor]:
        return itertools.chain(self.model.parameters(), self.model.buffers())


class Blip:
    """A `Captioner`. Knows its image geometry at once; reads no weights before `load`."""

    def __init__(self, checkpoint: Checkpoint, device: Device, *, max_new_tokens: int) -> None:
        self.identity = checkpoint.identity
        self.resize, self._normalization = preprocessing(checkpoint, BlipImageProcessorPil)
        self._checkpoint = checkpoint
        self._device = device
        self._max_new_tokens = max_new_tokens
        self._loaded: _Loaded | None = None

    def load(self) -> None:
        """Read weights and tokenizer into host memory.

        Raises:
            ModelUnavailable: they cannot be read, or are not whole.
        """
        model = load(self._checkpoint, BlipForConditionalGeneration, self._device.dtype)
        with unreadable(self._checkpoint.folder):
            tokenizer = AutoTokenizer.from_pretrained(
                self._checkpoint.folder, local_files_only=True
            )
        self._loaded = _Loaded(model=model, tokenizer=tokenizer, host=[])

    def to_device(self) -> None:
        """Copy the weights to the device, and caption one black image, which makes it warm."""
        loaded = self._require()
        with device_errors():
            if not self._device.is_host:
                loaded.host = [tensor.data for tensor in loaded.tensors()]
                torch.nn.Module.to(loaded.model, self._device.torch_device)
        self.caption([np.zeros((self.resize.height, self.resize.width, 3), np.uint8)])

    @torch.inference_mode()
    def caption(self, images: Sequence[Pixels]) -> list[str]:
        """Return one greedy caption per image, of at most `max_new_tokens` tokens.

        Raises:
            DeviceOutOfMemory, DeviceFailed: see `device_errors`.
        """
        loaded = self._require()
        with device_errors():
            tokens = loaded.model.generate(
                pixel_values=self._normalization.apply(images, self._device),
                max_new_tokens=self._max_new_tokens,
                num_beams=1,
                do_sample=False,
            ).cpu()
        texts: list[str] = loaded.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def offload(self) -> None:
        """Free the device; the weights stay in host memory."""
        loaded = self._require()
        for tensor, host in zip(loaded.tensors(), loaded.host, strict=True):
            tensor.data = host
        loaded.host = []
        free_memory()

    def unload(self) -> None:
        """Free everything, from whatever state."""
        self._loaded = None
        free_memory()

    def _require(self) -> _Loaded:
        if self._loaded is None:
            raise ModelUnavailable("BLIP is not loaded")
        return self._loaded
