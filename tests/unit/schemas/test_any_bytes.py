"""Any bytes give a message or one refusal, and a message survives the wire."""

import json
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas import (
    Code,
    Embedding,
    Refused,
    Request,
    Result,
    Stage,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from tests import strategies
from tests.effort import effort
from tests.unit.schemas.documents import (
    RESULT,
    as_sent,
    assert_request_or_refusal,
    refusal,
    request_with_metadata,
)


@given(strategies.requests)
def test_request_survives_the_wire(request: Request) -> None:
    """What is encoded decodes to the same request, metadata byte for byte."""
    decoded = decode_request(encode_request(request))

    assert decoded == request
    assert as_sent(decoded.metadata) == as_sent(request.metadata)


@given(strategies.results)
def test_result_survives_the_wire(result: Result) -> None:
    """What is encoded decodes to the same result, metadata byte for byte."""
    decoded = decode_result(encode_result(result))

    assert decoded == result
    assert as_sent(decoded.metadata) == as_sent(result.metadata)


@settings(max_examples=effort(300))
@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_give_a_request_or_one_refusal(value: bytes) -> None:
    """Nothing but a request or a `Refused` of stage admit comes out."""
    assert_request_or_refusal(value)


@settings(max_examples=effort(300), suppress_health_check=[HealthCheck.too_slow])
@given(strategies.near_requests())
@example(b'{"version":1,"id":"a","image":{"uri":"x"},"metadata":{"n":' + b"9" * 5000 + b"}}")
def test_nearly_valid_bytes_give_a_request_or_one_refusal(value: bytes) -> None:
    """The same for bytes that come close: wrong types, doubles, depth, surrogates, BOM, tails."""
    assert_request_or_refusal(value)


def test_deep_nesting_is_refused() -> None:
    """Nesting that a parser cannot follow is refused by name, within metadata and without."""
    deep = b'{"a":' * 5000 + b"0" + b"}" * 5000

    assert refusal(deep).code is Code.MALFORMED
    assert refusal(request_with_metadata(deep)).code is Code.MALFORMED


def test_nesting_just_below_the_parsers_limit_gives_a_request_or_a_refusal() -> None:
    """The two parsers inside have limits of their own: no depth falls between them."""
    for depth in range(900, 1030):
        assert_request_or_refusal(request_with_metadata(b'{"a":' * depth + b"0" + b"}" * depth))


def test_name_of_what_is_nested_too_deeply_stays_on_one_line() -> None:
    """Found by fuzzing: the sender's name for it went into the reason as it was."""
    deep = b"[" * 1010 + b"]" * 1010
    value = b'{"version":1,"id":"a","image":{"uri":"x"},"\\n\\u202e":%s,"metadata":{}}' % deep

    refused = refusal(value)

    assert refused.code is Code.INVALID
    # Before 3.12 Python's scanner takes no more than the recursion limit.
    assert "nested too deeply" in refused.reason or sys.version_info >= (3, 12)
    assert refused.reason.isprintable()


def test_nesting_where_a_word_is_expected_is_refused() -> None:
    """Found by fuzzing: an enum's error names the bad value, and Python gave up naming it."""
    for depth in range(900, 1030):
        deep = "[" * depth + "]" * depth
        assert_request_or_refusal(
            f'{{"version":1,"id":"a","image":{{"uri":"x"}},"tasks":[{deep}]}}'.encode()
        )
        with pytest.raises(Refused):
            decode_result(json.dumps(RESULT | {"error": {"code": 0}}).replace("0", deep).encode())


@given(st.binary(max_size=100))
def test_any_bytes_give_a_result_or_one_refusal(value: bytes) -> None:
    """Readers of results are as safe as the consumer."""
    try:
        outcome: Result | Refused = decode_result(value)
    except Refused as refused:
        outcome = refused
    assert isinstance(outcome, Result) or outcome.code.stage is Stage.ADMIT


def test_large_float_list_survives_the_wire() -> None:
    """A vector of 4096 float32 written as JSON numbers comes back bit for bit."""
    vector = [((n * 2654435761) % 2**24) / 2**24 - 0.5 for n in range(4096)]
    embedding = Embedding(model="m", revision="r", dim=4096, encoding="float", data=tuple(vector))
    result = decode_result(
        json.dumps(
            RESULT
            | {
                "status": "ok",
                "error": None,
                "image": {
                    "uri": "x",
                    "sha256": "0" * 64,
                    "width": 1,
                    "height": 1,
                    "format": "PNG",
                },
                "embedding": embedding.model_dump(mode="json"),
            }
        ).encode()
    )

    decoded = decode_result(encode_result(result)).embedding

    assert decoded is not None
    assert decoded.vector() == tuple(vector)
