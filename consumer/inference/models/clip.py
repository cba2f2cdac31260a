"""The image tower, always on the device: pixels in, unit vectors out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from consumer.inference.models.checkpoint import Checkpoint, load
from consumer.inference.models.device import (
    Device,
    Normalization,
    device_errors,
    free_memory,
    unit_vectors,
)
from consumer.inference.models.preprocessing import preprocessing
from consumer.inference.models.towers import TOWERS, vectors_of
from consumer.outcome import ModelIdentity
from consumer.pixels import Pixels, Resize


class Clip:
    """An `Embedder`, made by `load_clip`; `output` is the model output's field of vectors."""

    def __init__(
        self,
        model: PreTrainedModel,
        output: str,
        identity: ModelIdentity,
        resize: Resize,
        normalization: Normalization,
        device: Device,
    ) -> None:
        self.identity = identity
        self.resize = resize
        self._model = model
        self._output = output
        self._normalization = normalization
        self._device = device

    @torch.inference_mode()
    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return unit vectors, shape (images, dim), float32.

        Raises:
            ValueError: a vector is not finite, or the images are not all of the model's size.
        """
        with device_errors():
            values = self._normalization.apply(images, self._device)
            return unit_vectors(vectors_of(self._model(pixel_values=values), self._output))


def load_clip(checkpoint: Checkpoint, device: Device) -> Clip:
    """Load the image tower alone onto the device.

    Raises:
        ModelUnavailable: the checkpoint is incomplete, or its image processor is not supported.
    """
    towers = TOWERS[checkpoint.model_type]
    config, _ = towers.configs(checkpoint)
    resize, normalization = preprocessing(checkpoint, config.image_size)
    model = load(checkpoint, towers.image, device.dtype, config)
    with device_errors():
        torch.nn.Module.to(model, device.torch_device)
    if not device.is_host:
        free_memory()  # the host's copy
    return Clip(model, towers.image_output, checkpoint.identity, resize, normalization, device)
