"""Requests and results as JSON, right but for what a test changes."""

import json
from typing import Any

import pytest

from schemas import (
    JsonObject,
    Refused,
    Request,
    Stage,
    decode_request,
    encode_request,
)

REQUEST = {"version": 1, "id": "a", "image": {"uri": "file:///a"}}
TEXT_REQUEST = {"version": 1, "id": "a", "text": "a red car"}
RESULT = {
    "version": 1,
    "id": "a",
    "status": "error",
    "error": {"code": "not_found", "message": "m", "attempts": 1},
    "timing_ms": {},
    "source": {"topic": "t", "partition": 0, "offset": 1},
}


def request_with(**members: Any) -> bytes:
    return json.dumps(REQUEST | members).encode()


def request_with_metadata(as_sent: bytes) -> bytes:
    return b'{"version":1,"id":"a","image":{"uri":"x"},"metadata":%s}' % as_sent


def refusal(value: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        decode_request(value)
    return caught.value


def as_sent(metadata: JsonObject | None) -> bytes | None:
    return None if metadata is None else metadata.as_sent


def assert_request_or_refusal(value: bytes) -> None:
    try:
        outcome: Request | Refused = decode_request(value)
    except Refused as refused:
        outcome = refused
    if isinstance(outcome, Request):
        assert decode_request(encode_request(outcome)) == outcome
    else:
        assert_short_refusal_at_admission(outcome)


def assert_short_refusal_at_admission(refused: Refused) -> None:
    assert refused.code.stage is Stage.ADMIT
    assert refused.reason.isprintable()
    assert len(refused.reason) < 2000
