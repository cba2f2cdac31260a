"""The closed list of codes."""

import pickle

import pytest

from schemas import Code, Refused, Stage

WIRE = [
    "unsigned", "bad_signature", "unknown_key", "duplicate_header", "stale", "id_mismatch",
    "too_large", "malformed", "invalid", "unsupported_version", "forbidden_source", "not_found",
    "access_denied",
    "image_unavailable", "image_too_large", "digest_mismatch", "not_an_image",
    "unsupported_format", "too_many_pixels", "corrupt_image", "decoder_crashed",
    "inference_failed", "text_too_long",
]  # fmt: skip


def test_codes_on_the_wire_do_not_change() -> None:
    """Dashboards, alerts and readers of other languages go by these words."""
    assert [str(code) for code in Code] == WIRE


@pytest.mark.parametrize("code", Code)
def test_code_is_its_word_everywhere(code: Code) -> None:
    """It prints and compares as the word on the wire."""
    assert f"{code}" == code == code.value
    assert Code[code.name] is code
    assert pickle.loads(pickle.dumps(code)) is code


def test_only_an_unavailable_image_is_worth_another_try() -> None:
    """Everything else is as wrong the second time."""
    assert [code for code in Code if code.retryable] == [Code.IMAGE_UNAVAILABLE]


def test_stages_come_in_the_order_of_the_way() -> None:
    """The list reads like the way of a record."""
    stages = [code.stage for code in Code]

    assert stages == sorted(stages, key=list(Stage).index)


def test_refusal_says_code_and_reason() -> None:
    """The text of the exception is enough for a log line."""
    refused = Refused(Code.STALE, "too old")

    assert (str(refused), refused.code, refused.reason) == ("stale: too old", Code.STALE, "too old")


@pytest.mark.parametrize("code", Code)
def test_a_code_is_found_by_its_name(code: Code) -> None:
    """And by no other."""
    assert Code(str(code)) is code  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="not a valid Code"):
        Code(code.upper())  # type: ignore[call-arg]
