"""The models as the engine calls them; `models/` implements them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consumer.outcome import ModelIdentity
from consumer.pixels import Pixels, Resize

Tokens = tuple[int, ...]  # of one text, with its start and end marks


class Embedder(Protocol):
    """CLIP's image tower. Always on the device; called in the GPU thread only."""

    @property
    def identity(self) -> ModelIdentity: ...
    @property
    def resize(self) -> Resize: ...

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return unit vectors, shape (images, dim), float32."""


class OnDemand(Protocol):
    """A model that is loaded when a job needs it; `identity` is known before.

    `load` runs in a thread of its own and touches host memory only; the rest in the GPU thread.
    """

    @property
    def identity(self) -> ModelIdentity: ...

    def load(self) -> None:
        """Read the weights into host memory.

        Raises:
            ModelUnavailable: they cannot be read.
        """

    def to_device(self) -> None:
        """Move the weights to the device and warm them up."""

    def offload(self) -> None:
        """Free the device; the weights stay in host memory."""

    def unload(self) -> None:
        """Free everything, from any state, even after half a load."""


class Captioner(OnDemand, Protocol):
    """BLIP; `resize` is known before the load."""

    @property
    def resize(self) -> Resize: ...

    def caption(self, images: Sequence[Pixels]) -> list[str]:
        """Return one caption per image."""


class TextEmbedder(OnDemand, Protocol):
    """CLIP's text tower: vectors of the same space, model and revision as the images'."""

    def tokenize(self, text: str) -> Tokens:
        """Return the tokens of a text; needs no weights, and may run in any thread.

        Raises:
            Failed: `text_too_long`, more tokens than the model takes; nothing is cut off.
        """

    def embed_texts(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Return unit vectors, shape (texts, dim), float32."""
