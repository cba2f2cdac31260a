"""Bytes to message and back. Any bytes give a message or one `Refused`, nothing else."""

import json
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner behind json.loads
from typing import Any, Final

import orjson
from pydantic import ValidationError

from schemas.codes import Code, Refused
from schemas.messages import VERSION, JsonObject, Request, Result

MAX_VALUE_BYTES: Final = 256 * 1024
_JSON_SPACE: Final = " \t\n\r"
_raw_decode: Final = json.JSONDecoder().raw_decode


def decode_request(value: bytes) -> Request:
    """Parse a request.

    Raises:
        Refused: `too_large`, `malformed`, `unsupported_version` or `invalid`.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise Refused(
            Code.TOO_LARGE, f"the value has {len(value)} bytes; at most {MAX_VALUE_BYTES}"
        )
    members = _members(value)
    version = members.get("version", VERSION)
    if type(version) is not int:
        raise Refused(Code.INVALID, "version: not an integer")
    if version != VERSION:
        raise Refused(Code.UNSUPPORTED_VERSION, f"version {version}; this consumer knows {VERSION}")
    if "version" not in members:
        raise Refused(Code.INVALID, "version: missing")
    if isinstance(members.get("metadata"), dict):
        members["metadata"] = JsonObject(_as_sent(value, "metadata"))
    try:
        return Request.model_validate(members)
    except ValidationError as exc:
        raise Refused(Code.INVALID, describe_errors(exc)) from exc


def encode_request(request: Request) -> bytes:
    """Return the compact JSON of a request: one line, as the console producer needs it."""
    return _encode(request)


def decode_result(value: bytes) -> Result:
    """Parse a result.

    Raises:
        Refused: `malformed`, `unsupported_version` or `invalid`.
    """
    members = _members(value)
    if members.get("version") != VERSION:
        raise Refused(
            Code.UNSUPPORTED_VERSION,
            f"version {members.get('version')!r}; this reader knows {VERSION}",
        )
    if isinstance(members.get("metadata"), dict):
        members["metadata"] = JsonObject(_as_sent(value, "metadata"))
    try:
        return Result.model_validate(members)
    except ValidationError as exc:
        raise Refused(Code.INVALID, describe_errors(exc)) from exc


def encode_result(result: Result) -> bytes:
    """Return the compact JSON of a result; absent fields are left out."""
    return _encode(result)


def describe_errors(error: ValidationError) -> str:
    """Return the faults in one line, `where: what`, without the input: it may be a secret."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, d['loc'])) or 'value'}: {d['msg'].removeprefix('Value error, ')}"
        for d in details[:8]
    )


def _members(value: bytes) -> dict[str, Any]:
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise Refused(Code.MALFORMED, f"not UTF-8 JSON: {exc.msg} at character {exc.pos}") from exc
    if not isinstance(members, dict):
        raise Refused(Code.MALFORMED, "not a JSON object")
    return members


def _as_sent(value: bytes, name: str) -> bytes:
    """Return the bytes of the top-level member `name` of an object that is known to parse.

    The last one if it comes twice, as a parser takes it. orjson gives no positions, so the standard
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
            raise Refused(Code.INVALID, f"{key[:32]}: nested too deeply") from exc
        if key == name:
            found = text[start:end]
        position = _after_space(text, end)
        if text[position] == ",":
            position = _after_space(text, position + 1)
    return found.encode()


def _after_space(text: str, position: int) -> int:
    while text[position] in _JSON_SPACE:
        position += 1
    return position


def _encode(message: Request | Result) -> bytes:
    return orjson.dumps(message.model_dump(exclude_none=True), default=_as_sent_fragment)


def _as_sent_fragment(value: object) -> orjson.Fragment:
    if isinstance(value, JsonObject):
        return orjson.Fragment(value.as_sent)
    raise TypeError(f"{type(value).__name__} is not JSON")
