"""The weights of a model on demand: read into host memory, copied to the device, freed."""

import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from transformers import PreTrainedModel

from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.device import Device, device_errors, free_memory

Model = TypeVar("Model", bound=PreTrainedModel)


class Weights(Generic[Model]):
    """The weights of one model; `name` is for messages."""

    def __init__(self, name: str, read: Callable[[], Model], device: Device) -> None:
        self._name = name
        self._read = read
        self._device = device
        self._model: Model | None = None
        # The host's tensors while the device has its own. Weights never change, so `offload` puts
        # these back without a copy.
        self._host: list[torch.Tensor] = []

    @property
    def model(self) -> Model:
        """The loaded model.

        Raises:
            ModelUnavailable: it is not loaded.
        """
        if self._model is None:
            raise ModelUnavailable(f"{self._name} is not loaded")
        return self._model

    def load(self) -> None:
        """Read the weights into host memory; raises as `read` does."""
        self._model = self._read()

    def to_device(self) -> None:
        """Copy the weights to the device."""
        model = self.model
        if self._device.is_host:
            return
        with device_errors():
            self._host = [tensor.data for tensor in self._tensors()]
            torch.nn.Module.to(model, self._device.torch_device)

    def offload(self) -> None:
        """Free the device; the weights stay in host memory."""
        for tensor, host in zip(self._tensors(), self._host, strict=True):
            tensor.data = host
        self._host = []
        free_memory()

    def unload(self) -> None:
        """Free everything, from any state."""
        self._model = None
        self._host = []
        free_memory()

    def _tensors(self) -> list[torch.Tensor]:
        return [*itertools.chain(self.model.parameters(), self.model.buffers())]
