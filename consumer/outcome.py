"""What becomes of a record, and what the models and the image said on the way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import Code, Headers, Request, TimingMs

Vector = NDArray[np.float32]  # shape (dim,), unit length


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """What made a vector or a caption: the hub id or folder, and the revision."""

    model: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What the models say of one image or text; None where it was not asked for.

    Times are the batches'.
    """

    vector: Vector | None
    caption: str | None
    embed_ms: float | None
    caption_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is told of an image: `sha256` of its bytes as fetched, size after EXIF orientation."""

    sha256: str
    width: int
    height: int
    format: str
    fetch_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OkOutcome:
    """Everything that was asked for. It waits for its commit, and holds no pixels.

    `image` is None where the request was a text.
    """

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
class Kept:
    """The part of a dead letter that comes from the record; `truncated`: it is the remains."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedOutcome:
    """A record that may not come in, and what its dead letter keeps of it."""

    code: Code
    reason: str
    kept: Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatOutcome:
    """An id that was seen inside the replay window: counted, its offset committed, nothing said."""

    id: str


Outcome = OkOutcome | ErrorOutcome | RefusedOutcome | RepeatOutcome
