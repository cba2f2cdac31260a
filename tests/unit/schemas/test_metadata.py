"""Metadata: what is sent comes back byte for byte, within 16 KiB."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import (
    Code,
    JsonObject,
    Request,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from schemas.messages import MAX_METADATA_BYTES
from tests import strategies
from tests.effort import effort
from tests.unit.schemas.documents import (
    RESULT,
    as_sent,
    refusal,
    request_with,
    request_with_metadata,
)


@pytest.mark.parametrize("wrong", [True, 1, 1.5, "", "x", [], ["x"]], ids=repr)
def test_metadata_that_is_no_object_is_invalid(wrong: Any) -> None:
    """Metadata is an object, or absent."""
    refused = refusal(request_with(metadata=wrong))

    assert (refused.code, refused.reason) == (Code.INVALID, "metadata: not an object")


def test_null_metadata_after_an_object_is_absence() -> None:
    """The last member counts even when it is null."""
    value = b'{"version":1,"id":"a","image":{"uri":"x"},"metadata":{"n":1},"metadata":null}'

    assert decode_request(value).metadata is None


@pytest.mark.parametrize("filler", [b'"%s"', b'"": %s 1', b'"n":%s[]'])
def test_largest_metadata_are_accepted_and_one_byte_more_is_not(filler: bytes) -> None:
    """Metadata may have 16 KiB as sent, white space inside included."""
    filler = b'"":' + filler if filler.startswith(b'"%s') else filler
    room = MAX_METADATA_BYTES - len(b"{" + filler % b"" + b"}")
    largest = b"{" + filler % (b" " * room) + b"}"
    one_more = b"{" + filler % (b" " * (room + 1)) + b"}"

    assert as_sent(decode_request(request_with_metadata(largest)).metadata) == largest
    assert refusal(request_with_metadata(one_more)).code is Code.INVALID


def test_metadata_are_measured_in_bytes() -> None:
    """A character of three bytes counts three."""
    assert refusal(request_with_metadata(b'{"":"%s"}' % ("猫" * 5461).encode())).code is (
        Code.INVALID
    )


def test_white_space_around_metadata_is_not_theirs() -> None:
    """What is measured and echoed runs from brace to brace."""
    metadata = decode_request(request_with_metadata(b" \r\n\t{ } \n")).metadata

    assert as_sent(metadata) == b"{ }"


@pytest.mark.parametrize(
    "metadata",
    [
        b"{}",
        b'{"n":12345678901234567890123456789012345678901234567890}',
        b'{"n":1.0,"m":1e0,"o":1E+0,"p":-0,"q":-0.0,"r":0.10000000000000000000001}',
        b'{"z":1,"a":2,"z":3}',
        b'{"s":"\\u0041\\/\\n\\ud83d\\ude00"}',
        '{"s":"猫 \N{GRINNING FACE}"}'.encode(),
        b'{ "a" : [ 1 ,\t2 ] }',
        b'{"deep":[[[[{"}":"]","\\"":"{"}]]]]}',
        b'{"metadata":{"metadata":{}}}',
    ],
)
def test_metadata_are_echoed_byte_for_byte(metadata: bytes) -> None:
    """Numbers, order, escapes and doubles come back as they were sent."""
    request = decode_request(request_with_metadata(metadata))
    result = decode_result(json.dumps(RESULT).encode()).model_copy(
        update={"metadata": request.metadata}
    )

    assert as_sent(request.metadata) == metadata
    assert b'"metadata":' + metadata + b"}" in encode_request(request)
    assert as_sent(decode_result(encode_result(result)).metadata) == metadata


@settings(max_examples=effort(50))
@given(strategies.json_objects, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_any_metadata_are_echoed_byte_for_byte(
    members: dict[str, Any], indent: int | str | None, ascii_only: bool
) -> None:
    """The same for any object, however it is laid out."""
    metadata = json.dumps(members, indent=indent, ensure_ascii=ascii_only).encode()

    assert as_sent(decode_request(request_with_metadata(metadata)).metadata) == metadata


def test_null_inside_metadata_is_kept() -> None:
    """Leaving absent fields out does not reach into what is echoed."""
    request = decode_request(request_with_metadata(b'{"a":null}'))

    assert b'{"a":null}' in encode_request(request)


def test_plain_dictionary_becomes_metadata() -> None:
    """A caller in Python writes a dictionary; integers of any length keep every digit."""
    request = Request(id="a", image={"uri": "x"}, metadata={"n": 2**70, "s": "猫"})  # type: ignore[arg-type]

    assert as_sent(request.metadata) == '{"n":1180591620717411303424,"s":"猫"}'.encode()


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"n": float("nan")}, "not JSON compliant"),
        ({"n": float("inf")}, "not JSON compliant"),
        ({"n": {1}}, "set is not JSON serializable"),
        ({(1, 2): 3}, "not tuple"),
        ({"s": "\ud800"}, "surrogates"),
    ],
    ids=repr,
)
def test_dictionary_that_is_not_json_is_an_error(metadata: Any, reason: str) -> None:
    """NaN does not turn into null on the way, and the reason says what cannot be sent."""
    with pytest.raises(ValidationError, match=reason):
        Request(id="a", image={"uri": "x"}, metadata=metadata)  # type: ignore[arg-type]


def test_metadata_can_be_read_as_a_mapping() -> None:
    """Readers need no parser of their own."""
    metadata = JsonObject(b'{"album": 7, "tags": ["a"]}')

    assert dict(metadata) == {"album": 7, "tags": ["a"]}
    assert len(metadata) == 2


@pytest.mark.parametrize("as_sent", [b"", b"[]", b"1", b"{", b"{}x"])
def test_bytes_that_are_no_object_make_no_metadata(as_sent: bytes) -> None:
    """Nothing else can be put where metadata are echoed."""
    with pytest.raises(ValueError):  # noqa: PT011  # the parser's own messages
        JsonObject(as_sent)
