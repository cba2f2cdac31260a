"""The outcomes of a record, and their parts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import Code, Headers, Request, TimingMs

Vector = NDArray[np.float32]  # shape (dim,), unit length


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The model of a vector or a caption: hub id or folder, and revision."""

    model: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """The models' output for one image or text; None: not asked for. Times are the batches'."""

    vector: Vector | None
    caption: str | None
    embed_ms: float | None
    caption_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """Facts of an image for its result: `sha256` as fetched, size after EXIF orientation."""

    sha256: str
    width: int
    height: int
    format: str
    fetch_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OkOutcome:
    """A request with all that it asked for, without pixels; `image` is None for a text."""

    request: Request
    image: ImageFacts | None
    inference: Inference
    queue_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorOutcome:
    """An authentic request whose image or text could not be processed."""

    request: Request
    code: Code
    message: str
    attempts: int
    timing: TimingMs


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterContent:
    """The content of a dead letter; `truncated`: hashes of the record instead of the record."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedOutcome:
    """A record that was not admitted, and the content of its dead letter."""

    code: Code
    reason: str
    content: DeadLetterContent


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatOutcome:
    """A record whose id was seen inside the replay window: counted and committed, no output."""

    id: str


Outcome = OkOutcome | ErrorOutcome | RefusedOutcome | RepeatOutcome
