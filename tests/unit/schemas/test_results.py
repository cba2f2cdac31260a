"""Results: what a reader can rely on."""

import json
from typing import Any

import pytest

from schemas import (
    Code,
    Refused,
    decode_result,
)
from tests.unit.schemas.documents import (
    RESULT,
)


def test_unknown_fields_of_a_result_are_ignored() -> None:
    """An older reader outlives a newer consumer."""
    value = json.dumps(RESULT | {"novelty": 1, "source": RESULT["source"] | {"host": "x"}})  # type: ignore[operator]

    assert decode_result(value.encode()) == decode_result(json.dumps(RESULT).encode())


IMAGE = {"uri": "x", "sha256": "0" * 64, "width": 1, "height": 1, "format": "PNG"}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "ok"},
        {"status": "ok", "error": None},
        {"status": "ok", "image": IMAGE},
        {"image": IMAGE, "error": None},
        {"status": "done"},
        {"error": None},
        {"error": {"code": "no_such_code", "message": "", "attempts": 1}},
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
