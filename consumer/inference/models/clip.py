"""CLIP's image tower: pixels in, unit vectors out. Resident from start-up to the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.clip.configuration_clip import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from consumer.inference.models.checkpoint import Checkpoint, load, preprocessing, unreadable
from consumer.inference.models.device import (
    Device,
    Normalization,
    device_errors,
    free_memory,
    unit_vectors,
)
from consumer.outcome import ModelIdentity
from consumer.pixels import Pixels, Resize


class Clip:
    """An `Embedder`. Made by `load_clip`."""

    def __init__(
        self,
        model: CLIPVisionModelWithProjection,
        identity: ModelIdentity,
        resize: Resize,
        normalization: Normalization,
        device: Device,
    ) -> None:
        self.identity = identity
        self.resize = resize
        self._model = model
        self._normalization = normalization
        self._device = device

    @torch.inference_mode()
    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return unit vectors, shape (images, dim), float32.

        Raises:
            ValueError: a vector is not finite, or the images are not all of the model's size.
            DeviceOutOfMemory, DeviceFailed: see `device_errors`.
        """
        with device_errors():
            values = self._normalization.apply(images, self._device)
            return unit_vectors(self._model(pixel_values=values).image_embeds)


def load_clip(checkpoint: Checkpoint, device: Device) -> Clip:
    """Load the image tower, and it alone, onto the device.

    Raises:
        ModelUnavailable: the checkpoint is not whole.
        DeviceOutOfMemory, DeviceFailed: see `device_errors`.
    """
    resize, normalization = preprocessing(checkpoint, CLIPImageProcessorPil)
    with unreadable(checkpoint.folder):
        whole = CLIPConfig.from_pretrained(checkpoint.folder, local_files_only=True)
        tower: Any = whole.vision_config
        # The whole model goes by its own width of the vectors, and leaves the tower's a default.
        tower.projection_dim = whole.projection_dim
    model = load(checkpoint, CLIPVisionModelWithProjection, device.dtype, tower)
    with device_errors():
        torch.nn.Module.to(model, device.torch_device)
    if not device.is_host:
        free_memory()  # the host's copy
    return Clip(model, checkpoint.identity, resize, normalization, device)
