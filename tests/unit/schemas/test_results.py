"""Results: what a reader can rely on."""

import json
from typing import Any

import pytest

from schemas import (
    Code,
    Refused,
    decode_result,
    encode_result,
)
from tests.unit.schemas.documents import (
    RESULT,
)


def test_unknown_fields_of_a_result_are_ignored() -> None:
    """An older reader outlives a newer consumer."""
    value = json.dumps(RESULT | {"novelty": 1, "source": RESULT["source"] | {"host": "x"}})  # type: ignore[operator]

    assert decode_result(value.encode()) == decode_result(json.dumps(RESULT).encode())


def test_a_code_that_is_not_known_is_read() -> None:
    """A newer consumer may fail for a new reason."""
    error = {"code": "no_such_code", "message": "m", "attempts": 1}

    result = decode_result(json.dumps(RESULT | {"error": error}).encode())

    assert result.error is not None
    assert result.error.code == "no_such_code"
    assert decode_result(encode_result(result)) == result


def test_an_error_may_say_which_image_failed() -> None:
    """By its URI alone: nothing else of it is known."""
    result = decode_result(json.dumps(RESULT | {"image": {"uri": "s3://b/k"}}).encode())

    assert result.image is not None
    assert (result.image.uri, result.image.width) == ("s3://b/k", None)


def test_an_ok_may_have_no_image() -> None:
    """It is the answer to a text."""
    result = decode_result(json.dumps(RESULT | {"status": "ok", "error": None}).encode())

    assert (result.status, result.image) == ("ok", None)


IMAGE = {"uri": "x", "sha256": "0" * 64, "width": 1, "height": 1, "format": "PNG"}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "ok"},
        {"status": "ok", "image": IMAGE},
        {"status": "ok", "error": None, "image": {"uri": "x"}},
        {"image": IMAGE, "error": None},
        {"status": "done"},
        {"error": None},
        {"error": {"code": 7, "message": "", "attempts": 1}},
        {"image": {"sha256": "0" * 64}},
        {"source": None},
        {"timing_ms": 1},
        {"metadata": []},
        {"id": "a b"},
    ],
    ids=repr,
)
def test_result_that_contradicts_itself_is_invalid(change: dict[str, Any]) -> None:
    """A reader gets a whole result or one refusal."""
    with pytest.raises(Refused) as caught:
        decode_result(json.dumps(RESULT | change).encode())

    assert caught.value.code is Code.INVALID


def test_reason_of_a_strange_result_version_is_short() -> None:
    """A huge value in place of the version is not quoted."""
    with pytest.raises(Refused) as caught:
        decode_result(json.dumps(RESULT | {"version": "x" * 10_000}).encode())

    assert len(caught.value.reason) < 100
