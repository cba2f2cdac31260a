"""Bytes to message and back. Any bytes give a message or a `Refused`, nothing else."""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner behind json.loads
from typing import Any, Final, TypeVar

import orjson
from pydantic import ValidationError

from schemas.codes import Code, Refused
from schemas.messages import VERSION, JsonObject, Request, Result, Source

MAX_VALUE_BYTES: Final = 256 * 1024
MAX_PATH_CHARS: Final = 80
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_raw_decode: Final = json.JSONDecoder().raw_decode
_Message = TypeVar("_Message", Request, Result)


def decode_request(value: bytes) -> Request:
    """Parse a request.

    Raises:
        Refused: `too_large`, `malformed`, `unsupported_version` or `invalid`.
    """
    check_size(value)
    return _decode(Request, value)


def encode_request(request: Request) -> bytes:
    """Return the compact JSON of a request, with its metadata as sent."""
    return _encode(request)


def decode_result(value: bytes) -> Result:
    """Parse a result.

    Raises:
        Refused: `malformed`, `unsupported_version` or `invalid`.
    """
    return _decode(Result, value)


def encode_result(result: Result) -> bytes:
    """Return the compact JSON of a result, without absent fields."""
    return _encode(result)


def decode_source(value: bytes) -> Source:
    """Return the `source` of a result, and validate nothing else: vectors are long.

    Raises:
        Refused: `malformed` or `invalid`.
    """
    try:
        return Source.model_validate(_members(value).get("source"))
    except ValidationError as exc:
        raise Refused(Code.INVALID, describe_errors(exc)) from exc


def check_size(value: bytes) -> None:
    """Raise `Refused` with `too_large` for a value that no request may have."""
    if len(value) > MAX_VALUE_BYTES:
        raise Refused(
            Code.TOO_LARGE, f"the value has {len(value)} bytes; at most {MAX_VALUE_BYTES}"
        )


def describe_errors(error: ValidationError) -> str:
    """Return the faults in one line, `where: what`, without the input: it may be a secret."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{_where(d['loc'])}: {d['msg'].removeprefix('Value error, ')}" for d in details[:8]
    )


def _where(location: tuple[int | str, ...]) -> str:
    """Return the path to a fault, cut and on one line: a name in it may be the sender's."""
    path = ".".join(map(str, location))[:MAX_PATH_CHARS] or "value"
    return path if path.isprintable() else ascii(path)


def _decode(type_: type[_Message], value: bytes) -> _Message:
    members = _members(value)
    version = members.get("version")
    if type(version) is not int:  # True and 1.0 equal 1
        raise Refused(Code.INVALID, "version: missing or not an integer")
    if version != VERSION:
        raise Refused(Code.UNSUPPORTED_VERSION, f"version {version}; {VERSION} is the one known")
    if isinstance(members.get("metadata"), dict):
        members["metadata"] = JsonObject(_as_sent(value, "metadata"))
    try:
        return type_.model_validate(members)
    except ValidationError as exc:
        raise Refused(Code.INVALID, describe_errors(exc)) from exc
    except RecursionError as exc:  # an enum's error prints the whole bad value
        raise Refused(Code.INVALID, "value: nested too deeply") from exc


def _members(value: bytes) -> dict[str, Any]:
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise Refused(Code.MALFORMED, f"not UTF-8 JSON: {exc.msg} at character {exc.pos}") from exc
    if not isinstance(members, dict):
        raise Refused(Code.MALFORMED, "not a JSON object")
    return members


def _as_sent(value: bytes, name: str) -> bytes:
    """Return the bytes of the top-level member `name` of an object that parses.

    The last of two members counts, as for a parser. orjson gives no positions, so the standard
    library's scanner walks the top level.
    """
    text, found = value.decode(), ""
    position = _after_space(text, text.index("{") + 1)
    while text[position] != "}":
        key, position = scanstring(text, position + 1, True)
        start = _after_space(text, _after_space(text, position) + 1)
        try:
            _, end = _raw_decode(text, start)
        except RecursionError as exc:
            raise Refused(Code.INVALID, f"{_where((key,))}: nested too deeply") from exc
        if key == name:
            found = text[start:end]
        position = _after_space(text, end)
        if text[position] == ",":
            position = _after_space(text, position + 1)
    return found.encode()


def _after_space(text: str, position: int) -> int:
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it always matches


def _encode(message: Request | Result) -> bytes:
    return orjson.dumps(message.model_dump(exclude_none=True), default=_as_sent_fragment)


def _as_sent_fragment(value: object) -> orjson.Fragment:
    if isinstance(value, JsonObject):
        return orjson.Fragment(value.as_sent)
    raise TypeError(f"{type(value).__name__} is not JSON")
