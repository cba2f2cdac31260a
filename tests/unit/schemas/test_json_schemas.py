"""The JSON Schemas on disk: generated from the types, and of one mind with the codec."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

import schemas
from schemas import (
    Refused,
    Request,
    Result,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from schemas.__main__ import json_schemas
from tests import strategies
from tests.unit.schemas.documents import REQUEST, RESULT, TEXT_REQUEST

FOLDER = Path(schemas.__file__).parent
REQUEST_SCHEMA = Draft202012Validator(json.loads((FOLDER / "request.schema.json").read_bytes()))
RESULT_SCHEMA = Draft202012Validator(json.loads((FOLDER / "result.schema.json").read_bytes()))


@pytest.mark.parametrize("name", json_schemas())
def test_schema_on_disk_is_the_generated_one(name: str) -> None:
    """`python -m schemas` was run after the last change of the types."""
    assert (FOLDER / name).read_bytes() == json_schemas()[name]


def test_no_other_schema_lies_on_disk() -> None:
    """A schema that nothing generates would drift for ever."""
    assert {path.name for path in FOLDER.glob("*.schema.json")} == set(json_schemas())


@pytest.mark.parametrize("validator", [REQUEST_SCHEMA, RESULT_SCHEMA])
def test_schema_is_a_schema(validator: Draft202012Validator) -> None:
    """Other languages' generators get a valid 2020-12 document that says so."""
    Draft202012Validator.check_schema(validator.schema)
    assert validator.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@given(strategies.requests)
def test_schema_accepts_every_request_that_we_send(request: Request) -> None:
    """What the codec writes, the schema allows."""
    REQUEST_SCHEMA.validate(json.loads(encode_request(request)))


@given(strategies.results)
def test_schema_accepts_every_result_that_we_send(result: Result) -> None:
    """The same for results."""
    RESULT_SCHEMA.validate(json.loads(encode_result(result)))


CHANGES: list[dict[str, Any]] = [
    {},
    {"tasks": ["embed"]},
    {"tasks": ["caption", "embed"]},
    {"metadata": {}},
    {"metadata": None},
    {"image": {"uri": "x", "sha256": "0" * 64, "media_type": "image/png"}},
    {"image": {"uri": "x", "sha256": None}},
    {"version": True},
    {"version": "1"},
    {"version": 2},
    {"id": ""},
    {"id": 5},
    {"id": "a b"},
    {"id": "a" * 65},
    {"tasks": []},
    {"tasks": ["embed", "embed"]},
    {"tasks": ["paint"]},
    {"tasks": None},
    {"image": {}},
    {"image": {"uri": ""}},
    {"image": {"uri": "x" * 8193}},
    {"image": {"uri": "x", "sha256": "A" * 64}},
    {"image": {"uri": "x", "url": "y"}},
    {"metadata": []},
    {"metadata": "x"},
    {"image": None},
    {"text": "a red car"},
    {"text": None},
    {"priority": 9},
]


def codec_accepts_request(document: dict[str, Any]) -> bool:
    try:
        decode_request(json.dumps(document).encode())
    except Refused:
        return False
    return True


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: repr(change)[:60])
def test_schema_and_codec_agree_on_a_changed_request(change: dict[str, Any]) -> None:
    """Who validates with the schema before sending is not refused, and the other way round."""
    document = REQUEST | change

    assert REQUEST_SCHEMA.is_valid(document) == codec_accepts_request(document)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tasks": ["embed"]},
        {"tasks": ["caption"]},
        {"tasks": ["embed", "caption"]},
        {"image": None},
        {"image": {"uri": "x"}},
        {"text": ""},
        {"text": None},
        {"text": "猫" * 4096},
        {"text": "x" * 4097},
        {"text": 5},
    ],
    ids=lambda change: repr(change)[:60],
)
def test_schema_and_codec_agree_on_a_text(change: dict[str, Any]) -> None:
    """The same for the request that has a text."""
    document = TEXT_REQUEST | change

    assert REQUEST_SCHEMA.is_valid(document) == codec_accepts_request(document)


@pytest.mark.parametrize("field", REQUEST)
def test_schema_and_codec_agree_on_what_a_request_must_have(field: str) -> None:
    """Each field of the shortest request is required by both."""
    document = {name: value for name, value in REQUEST.items() if name != field}

    assert not REQUEST_SCHEMA.is_valid(document)
    assert not codec_accepts_request(document)


@pytest.mark.parametrize("field", [*RESULT, "metadata"])
def test_schema_and_codec_agree_on_what_a_result_must_have(field: str) -> None:
    """The same for results, but for the rule that an error needs its reason."""
    document = {name: value for name, value in RESULT.items() if name != field}
    try:
        decode_result(json.dumps(document).encode())
        accepted = True
    except Refused:
        accepted = False

    # JSON Schema would need a condition for `error`; generators of code stumble over those.
    assert RESULT_SCHEMA.is_valid(document) == (accepted or field == "error")
