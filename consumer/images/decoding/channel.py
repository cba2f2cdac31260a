"""The protocol of the consumer and a decoding process: one socket and one segment of memory.

The consumer asks over the socket: two lengths, the image's descriptor, the targets as JSON. The
process answers with a length and a `Picture` or a `Verdict` as JSON; the pixels of a `Picture` lie
in the segment, target after target. A hostile image may control the process and its answers, so the
consumer validates every answer against these types, and unpickles nothing.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from consumer.images.decoding.limits import DecodeLimits
from consumer.pixels import Resize
from schemas import Code, Stage, Task

QUESTION: Final = struct.Struct(">IQ")  # byte lengths of targets and image
ANSWER: Final = struct.Struct(">I")  # byte length of the JSON
MAX_ANSWER_BYTES: Final = 4096

_STRICT: Final = ConfigDict(extra="forbid", strict=True)


def _of_decoding(code: Code) -> Code:
    if code.stage is not Stage.DECODE:
        raise ValueError("a code of another stage")
    return code


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options of a process: the limits of an image, and its own."""

    limits: DecodeLimits
    niceness: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first answer: `fault` says why the process cannot decode, `lacks` what its cage lacks."""

    __pydantic_config__ = _STRICT

    fault: str = ""
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The image was decoded; its pixels are in the segment."""

    __pydantic_config__ = _STRICT

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """There are no pixels; `code` says why."""

    __pydantic_config__ = _STRICT

    code: Annotated[Code, AfterValidator(_of_decoding)]
    message: Annotated[str, Field(max_length=500), AfterValidator(_printable)]


OPTIONS_JSON: Final = TypeAdapter(WorkerOptions)
STARTED_JSON: Final = TypeAdapter(Started)
TARGETS_JSON: Final[TypeAdapter[Mapping[Task, Resize]]] = TypeAdapter(Mapping[Task, Resize])
ANSWER_JSON: Final[TypeAdapter[Picture | Verdict]] = TypeAdapter(Picture | Verdict)
