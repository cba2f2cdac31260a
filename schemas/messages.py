"""Request and result. Frozen, validated when made.

A request refuses unknown fields: a misspelt option must not pass unnoticed. A result ignores them,
so that an older reader can read a newer consumer's results.
"""

import base64
import json
import sys
from array import array
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from schemas.signing import ID_PATTERN

VERSION: Final = 1
MAX_URI_CHARS: Final = 8192
MAX_TEXT_CHARS: Final = 4096
MAX_METADATA_BYTES: Final = 16 * 1024

MessageId = Annotated[str, Field(pattern=f"^{ID_PATTERN}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


Encoding = Literal["base64", "base64-be", "float"]
_BYTE_ORDERS: Final = {"base64": "little", "base64-be": "big"}


class Task(StrEnum):
    EMBED = "embed"
    CAPTION = "caption"


class JsonObject(Mapping[str, Any]):
    """A JSON object that keeps its bytes as sent: long numbers and order stay unchanged.

    Raises:
        ValueError: not a JSON object.
    """

    __slots__ = ("_members", "as_sent")

    def __init__(self, as_sent: bytes) -> None:
        members = orjson.loads(as_sent)
        if not isinstance(members, dict):
            raise ValueError("not a JSON object")
        self._members = members
        self.as_sent = as_sent

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"JsonObject({self.as_sent!r})"


def _metadata(value: object) -> JsonObject:
    """Check the size, and take a dict as well: a caller writes `metadata={"album": 7}`."""
    if isinstance(value, dict):
        try:
            # Not orjson: it makes null of NaN and knows no integer above 64 bits.
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except TypeError as exc:
            raise ValueError(str(exc)) from exc
        value = JsonObject(text.encode())
    if not isinstance(value, JsonObject):
        raise ValueError("not an object")
    if len(value.as_sent) > MAX_METADATA_BYTES:
        raise ValueError(f"{len(value.as_sent)} bytes; at most {MAX_METADATA_BYTES}")
    return value


Metadata = Annotated[
    JsonObject,
    BeforeValidator(_metadata),
    WithJsonSchema({"type": "object", "description": "Anything; echoed unchanged."}),
]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class _ResultModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


class ImageReference(_Message):
    """The image's address. Its bytes must hash to `sha256`, if that is given."""

    uri: str = Field(min_length=1, max_length=MAX_URI_CHARS)
    sha256: Sha256 | None = None
    media_type: str | None = Field(default=None, max_length=255)


def _default_tasks(members: dict[str, Any]) -> tuple[Task, ...]:
    return (Task.EMBED,) if members.get("text") is not None else (Task.EMBED, Task.CAPTION)


class Request(_Message):
    """What to embed or caption: an image, or a text, which can be embedded only."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["version", "id"],
            "oneOf": [
                {"required": ["image"], "properties": {"image": {"type": "object"}}},
                {
                    "required": ["text"],
                    "properties": {"text": {"type": "string"}, "tasks": {"const": ["embed"]}},
                },
            ],
        }
    )

    version: Literal[1] = VERSION
    id: MessageId
    image: ImageReference | None = None
    text: str | None = Field(default=None, min_length=1, max_length=MAX_TEXT_CHARS)
    tasks: tuple[Task, ...] = Field(
        default_factory=_default_tasks,
        min_length=1,
        max_length=2,
        json_schema_extra={"uniqueItems": True},
        description="Absent: both for an image, embed for a text.",
    )
    metadata: Metadata | None = None

    @field_validator("tasks")
    @classmethod
    def _unique(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        if len(set(tasks)) != len(tasks):
            raise ValueError("a task comes twice")
        return tasks

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.image is None) == (self.text is None):
            raise ValueError("either an image or a text is needed, and not both")
        if self.text is not None and self.tasks != (Task.EMBED,):
            raise ValueError("a text can be embedded only")
        return self

    @property
    def subject(self) -> str:
        """The image's URI, or the text."""
        return self.image.uri if self.image is not None else self.text or ""


class ImageInfo(_ResultModel):
    """The image: `sha256` of its bytes as fetched, `width` and `height` after EXIF orientation.

    A failed image has `uri` alone; an `ok` result has all five.
    """

    uri: str
    sha256: Sha256 | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None


class Embedding(_ResultModel):
    """A unit vector of `dim` float32: base64 of their bytes, or JSON numbers.

    The bytes of `base64` are little-endian, those of `base64-be` big-endian.
    """

    model: str
    revision: str
    dim: int
    normalized: Literal[True] = True
    dtype: Literal["float32"] = "float32"
    encoding: Encoding
    data: str | tuple[float, ...]

    def vector(self) -> tuple[float, ...]:
        """Return the `dim` numbers, whatever the encoding.

        Raises:
            ValueError: `data` does not hold `dim` numbers in the encoding it names.
        """
        if isinstance(self.data, str) == (self.encoding == "float"):
            raise ValueError(f"the encoding is {self.encoding}, the data are not")
        if isinstance(self.data, str):
            numbers = array("f", base64.b64decode(self.data, validate=True))
            if sys.byteorder != _BYTE_ORDERS[self.encoding]:
                numbers.byteswap()
            vector = tuple(numbers)
        else:
            vector = self.data
        if len(vector) != self.dim:
            raise ValueError(f"{len(vector)} numbers where dim says {self.dim}")
        return vector


class Caption(_ResultModel):
    model: str
    revision: str
    text: str


class Failure(_ResultModel):
    """Why a request failed. `message` is for a person; `attempts` counts the tries.

    `code` is any string: a newer consumer may have codes that this version's `Code` lacks.
    """

    code: str
    message: str
    attempts: int


class TimingMs(_ResultModel):
    """Milliseconds; a stage not reached or not asked for is absent. `queue`: append to start."""

    queue: float | None = None
    fetch: float | None = None
    decode: float | None = None
    embed: float | None = None
    caption: float | None = None
    total: float | None = None


class Source(_ResultModel):
    """The request's place in the log, and the consumer group (absent from older consumers)."""

    topic: str
    partition: int
    offset: int
    group: str | None = None


class Result(_ResultModel):
    """The outcome of one request: `ok` with the embedding or caption, or `error` with the reason.

    The `ok` result of a text has no `image`; an `error` may have one, with its `uri` alone.
    """

    model_config = ConfigDict(
        json_schema_extra={"required": ["version", "id", "status", "timing_ms", "source"]}
    )

    version: Literal[1] = VERSION
    id: MessageId
    status: Literal["ok", "error"]
    image: ImageInfo | None = None
    embedding: Embedding | None = None
    caption: Caption | None = None
    error: Failure | None = None
    timing_ms: TimingMs
    source: Source
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.status == "error") != (self.error is not None):
            raise ValueError("an error result has an error, an ok result has none")
        if self.status == "ok" and self.image and None in dict(self.image).values():
            raise ValueError("the image of an ok result is described in full")
        return self
