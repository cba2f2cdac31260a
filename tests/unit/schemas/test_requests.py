"""Requests: strict, and refused by the code that names the fault."""

import json
from typing import Any

import pytest

from schemas import (
    Code,
    Refused,
    Task,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from schemas.codec import MAX_VALUE_BYTES
from tests.unit.schemas.documents import (
    RESULT,
    TEXT_REQUEST,
    as_sent,
    refusal,
    request_with,
)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"\xff",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"{",
        b'{"version":1}x',
        b'{"version":1}\0',
        b'{"version":1}{"version":1}',
        b'\xef\xbb\xbf{"version":1}',
        b'{"version":1,}',
        b"{'version':1}",
        b'{"version":1 /* one */}',
        b'{"version":1,"id":"\\ud800"}',
        b'{"version":1,"id":"\xed\xa0\x80"}',
        b'{"version":1,"n":NaN}',
        b'{"version":1,"n":Infinity}',
        b'{"version":1,"n":1e999}',
        b'{"version":01}',
        '{"version":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_a_json_object_is_malformed(value: bytes) -> None:
    """Bytes that are not one UTF-8 JSON object, and nothing else, are `malformed`."""
    assert refusal(value).code is Code.MALFORMED


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (True, Code.INVALID),
        (1.0, Code.INVALID),
        ("1", Code.INVALID),
        (None, Code.INVALID),
        ([1], Code.INVALID),
        (2, Code.UNSUPPORTED_VERSION),
        (0, Code.UNSUPPORTED_VERSION),
        (-1, Code.UNSUPPORTED_VERSION),
        (2**63, Code.UNSUPPORTED_VERSION),
        (2**200, Code.INVALID),
    ],
)
def test_version_is_the_integer_1(version: Any, code: Code) -> None:
    """Only the JSON integer 1 passes, though Python holds True and 1.0 equal to it."""
    assert refusal(request_with(version=version)).code is code
    with pytest.raises(Refused) as caught:
        decode_result(json.dumps(RESULT | {"version": version}).encode())
    assert caught.value.code is code


def test_missing_version_is_invalid() -> None:
    """A request says which version it is; there is no default on the wire."""
    assert refusal(b'{"id":"a","image":{"uri":"x"}}').code is Code.INVALID


def test_unknown_version_is_named_before_its_unknown_fields() -> None:
    """A later version's new fields do not hide that the version is the trouble."""
    assert refusal(request_with(version=2, priority=9)).code is Code.UNSUPPORTED_VERSION


WRONG_TYPES: list[Any] = [True, 1, 1.5, None, "", [], {}, ["x"], {"x": 1}]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        (field, wrong)
        for field in ("id", "image", "tasks")
        for wrong in WRONG_TYPES
        if (field, wrong) != ("image", None)  # that is an absent one
    ],
    ids=repr,
)
def test_wrong_type_of_a_field_is_invalid(field: str, wrong: Any) -> None:
    """No value is taken for another type: 1 is not "1", and "embed" is not a list of tasks."""
    refused = refusal(request_with(**{field: wrong}))

    assert refused.code is Code.INVALID
    assert refused.reason.startswith(field)


@pytest.mark.parametrize(
    "image",
    [
        {},
        {"uri": None},
        {"uri": ""},
        {"uri": 5},
        {"uri": "x" * 8193},
        {"uri": "x", "sha256": "0" * 63},
        {"uri": "x", "sha256": "A" * 64},
        {"uri": "x", "sha256": "0" * 64 + "\n"},
        {"uri": "x", "media_type": 1},
        {"uri": "x", "url": "y"},
    ],
)
def test_bad_image_is_invalid(image: Any) -> None:
    """Length and form of `uri` and `sha256` are checked, and no unknown field is let through."""
    assert refusal(request_with(image=image)).code is Code.INVALID


def test_longest_uri_is_accepted() -> None:
    """8192 characters are allowed, counted as characters and not as bytes."""
    assert decode_request(request_with(image={"uri": "猫" * 8192})).subject == "猫" * 8192


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "a" * 65,
        "a b",
        "a\n",
        "\na",
        "a\0",
        "a/b",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\N{FULLWIDTH DIGIT ONE}",
        "é",
    ],
)
def test_id_outside_its_characters_is_invalid(id_: str) -> None:
    """ASCII letters, digits and `._-` only; a newline at the end does not slip by."""
    assert refusal(request_with(id=id_)).code is Code.INVALID


@pytest.mark.parametrize(
    "tasks", [["embed", "embed"], ["paint"], ["EMBED"], [1], [None], ["embed", "caption", "embed"]]
)
def test_bad_tasks_are_invalid(tasks: Any) -> None:
    """Tasks are known and unique."""
    assert refusal(request_with(tasks=tasks)).code is Code.INVALID


def test_tasks_default_to_both() -> None:
    """A request that names no task asks for all of them."""
    assert decode_request(request_with()).tasks == (Task.EMBED, Task.CAPTION)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("a", True),
        ("猫" * 4096, True),
        (" ", True),
        ("", False),
        ("x" * 4097, False),
        (None, False),
        (5, False),
        (["a"], False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_text_has_1_to_4096_characters(text: Any, accepted: bool) -> None:
    """Characters are counted, not bytes; nothing is taken for a text that is none."""
    value = json.dumps(TEXT_REQUEST | {"text": text}).encode()

    if accepted:
        assert decode_request(value).text == text
    else:
        assert refusal(value).code is Code.INVALID


def test_a_text_is_embedded() -> None:
    """That is the default, and the only task it may name."""
    assert decode_request(json.dumps(TEXT_REQUEST).encode()).tasks == (Task.EMBED,)
    for tasks in (["caption"], ["embed", "caption"]):
        refused = refusal(json.dumps(TEXT_REQUEST | {"tasks": tasks}).encode())
        assert (refused.code, refused.reason) == (
            Code.INVALID,
            "value: a text can be embedded only",
        )


@pytest.mark.parametrize(
    "change", [{"text": "a red car"}, {"image": None}, {"image": None, "text": None}], ids=repr
)
def test_either_an_image_or_a_text(change: dict[str, Any]) -> None:
    """Both, or neither, is no request; null says the same as leaving it out."""
    refused = refusal(request_with(**change))

    assert refused.code is Code.INVALID
    assert refused.reason == "value: either an image or a text is needed, and not both"


def test_null_of_an_optional_field_is_absence() -> None:
    """`null` says the same as leaving the field out."""
    image = {"uri": "file:///a", "sha256": None, "media_type": None}

    assert decode_request(request_with(image=image, metadata=None)) == decode_request(
        request_with()
    )


def test_member_that_comes_twice_counts_by_its_last() -> None:
    """The last one counts, for the echo of the metadata too, however its name is escaped."""
    request = decode_request(
        b'{"id":"b","version":1,"id":"a","image":{"uri":"x"},'
        b'"metadata":{"n":1},"meta\\u0064ata":{"n": 2}}'
    )

    assert request.id == "a"
    assert as_sent(request.metadata) == b'{"n": 2}'


def test_unknown_field_is_named() -> None:
    """The reason says where the fault is."""
    refused = refusal(request_with(priority=9))

    assert refused.code is Code.INVALID
    assert refused.reason.startswith("priority: ")


def test_name_of_an_unknown_field_is_cut_and_kept_on_one_line() -> None:
    """A sender cannot fill a log line, or break out of it, with a field's name."""
    refused = refusal(request_with(**{"x\n\x1b[31m" + "y" * 10_000: 1, "z": 1}))

    assert refused.reason.isprintable()
    assert len(refused.reason) < 400


def test_long_list_of_faults_is_cut() -> None:
    """Ten thousand faults make one short reason."""
    refused = refusal(request_with(**{f"x{n}": 1 for n in range(10_000)}))

    assert len(refused.reason) < 1000


def test_reason_does_not_quote_the_value() -> None:
    """URIs may hold credentials: the reason says what is wrong, not what was sent."""
    refused = refusal(request_with(image={"uri": "x" * 9000, "sha256": "hunter2"}))

    assert "hunter2" not in refused.reason
    assert "xxx" not in refused.reason


def test_largest_value_is_accepted_and_one_byte_more_is_not() -> None:
    """A value may have 256 KiB as sent, white space included."""
    value = request_with(metadata={}).ljust(MAX_VALUE_BYTES)

    assert decode_request(value).id == "a"
    assert refusal(value + b" ").code is Code.TOO_LARGE


def test_encoded_messages_leave_absent_fields_out() -> None:
    """Absence costs no bytes, and null is for nobody to puzzle over."""
    assert b"null" not in encode_request(decode_request(request_with()))
    assert b"null" not in encode_result(decode_result(json.dumps(RESULT).encode()))
