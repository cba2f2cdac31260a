"""An outcome to its records: signed results, dead letters that keep the record, or nothing."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import orjson
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from consumer.outcome import (
    ErrorOutcome,
    Inference,
    ModelIdentity,
    OkOutcome,
    RefusedOutcome,
    RepeatOutcome,
)
from consumer.record.dead_letters import MAX_DEAD_LETTER_BYTES, DeadLetterRate, content_within_rate
from consumer.record.results import MAX_REASON_BYTES, MAX_RESULT_KEY_BYTES, OutcomeEncoder
from schemas import (
    Code,
    ImageReference,
    JsonObject,
    OutgoingRecord,
    Record,
    Request,
    Signer,
    Task,
    TimingMs,
    Verifier,
    decode_result,
    encode_result,
    headers,
)
from tests.fakes import DLQ, FACTS, INGEST, KEYS, NOW, RESULTS, signed_record

KAFKA_LIMIT_BYTES = 1_048_588  # message.max.bytes by default, of a batch
VECTOR = np.array([0.6, -0.8], np.float32)
REQUEST = Request(
    id="a", image=ImageReference(uri="file:///a.png"), metadata=JsonObject(b'{"album":7}')
)


def _writer(**changes: Any) -> OutcomeEncoder:
    fields: dict[str, Any] = {
        "signer": Signer(KEYS, RESULTS),
        "results_topic": RESULTS,
        "dlq_topic": DLQ,
        "group_id": "g",
        "embedder": ModelIdentity(model="clip", revision="c1"),
        "captioner": ModelIdentity(model="blip", revision="b1"),
    }
    return OutcomeEncoder(**(fields | changes))


def _ok(tasks: tuple[Task, ...] = (Task.EMBED, Task.CAPTION)) -> OkOutcome:
    return OkOutcome(
        request=REQUEST,
        image=FACTS,
        inference=Inference(
            vector=VECTOR if Task.EMBED in tasks else None,
            caption="a red circle" if Task.CAPTION in tasks else None,
            embed_ms=3 if Task.EMBED in tasks else None,
            caption_ms=4 if Task.CAPTION in tasks else None,
        ),
        queue_ms=5,
        total_ms=10,
    )


def _refused(
    record: Record, code: Code = Code.UNSIGNED, reason: str = "no header"
) -> RefusedOutcome:
    content = content_within_rate(record, DeadLetterRate(2**40), NOW)
    return RefusedOutcome(code=code, reason=reason, content=content)


def _batch_length(record: OutgoingRecord | Record) -> int:
    batch = DefaultRecordBatchBuilder(2, 0, 1, -1, -1, -1, 2**31 - 1)
    batch.append(0, NOW * 1000, record.key, record.value, list(record.headers))
    return len(batch.build())


def _headers(record: OutgoingRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


@pytest.mark.parametrize("encoding", ["base64", "base64-be", "float"])
def test_result_holds_what_the_models_said(encoding: str) -> None:
    """Vector, caption and who made them come back from the bytes."""
    [out] = _writer(encoding=encoding).write(signed_record(REQUEST), _ok(), NOW)
    result = decode_result(out.value)
    assert result.embedding is not None
    assert result.embedding.vector() == pytest.approx(VECTOR.tolist())
    assert (result.embedding.model, result.embedding.revision) == ("clip", "c1")
    assert result.caption is not None
    assert (result.caption.text, result.caption.model) == ("a red circle", "blip")
    assert result.image is not None
    assert (result.image.width, result.image.height, result.image.format) == (2, 2, "PNG")
    assert result.metadata == {"album": 7}


def test_result_names_the_place_of_its_request_and_the_group() -> None:
    """Readers and the next start of the group know whose it is, whatever the outcome was."""
    failed = ErrorOutcome(
        request=REQUEST, code=Code.NOT_FOUND, message="gone", attempts=1, timing=TimingMs()
    )
    record = signed_record(REQUEST)
    for outcome in (_ok(), failed):
        result, *_ = _writer().write(record, outcome, NOW)
        source = decode_result(result.value).source
        assert (source.topic, source.partition, source.offset) == (
            record.topic,
            record.partition,
            record.offset,
        )
        assert source.group == "g"


@pytest.mark.parametrize("encoding", ["base64", "base64-be", "float"])
@pytest.mark.parametrize("metadata", [None, {"album": 7}])
@pytest.mark.parametrize("tasks", [(Task.EMBED,), (Task.CAPTION,), (Task.EMBED, Task.CAPTION)])
def test_result_is_what_the_schema_says_and_no_more(
    tasks: tuple[Task, ...], metadata: dict[str, int] | None, encoding: str
) -> None:
    """Read as a `Result` and written again it has every field and no other: none was misspelt."""
    ok = dataclasses.replace(_ok(tasks), request=REQUEST.model_copy(update={"metadata": None}))
    if metadata:
        ok = _ok(tasks)
    [out] = _writer(encoding=encoding).write(signed_record(REQUEST), ok, NOW)
    written = orjson.loads(out.value)
    assert written == orjson.loads(encode_result(decode_result(out.value)))
    names = {"queue", "fetch", "decode", "total", *tasks}
    assert written["timing_ms"].keys() == names
    assert written.get("metadata") == metadata


def test_result_holds_only_what_was_asked_for() -> None:
    """A caption alone has no embedding beside it."""
    [out] = _writer().write(signed_record(REQUEST), _ok(tasks=(Task.CAPTION,)), NOW)
    assert decode_result(out.value).embedding is None


def test_result_of_a_text_has_an_embedding_and_no_image() -> None:
    """Of the same model and revision as the images, with no stage of theirs."""
    request = Request(id="t", text="a red car", metadata=JsonObject(b'{"search":1}'))
    ok = dataclasses.replace(_ok((Task.EMBED,)), request=request, image=None)
    [out] = _writer().write(signed_record(request), ok, NOW)
    written, result = orjson.loads(out.value), decode_result(out.value)
    assert written == orjson.loads(encode_result(result))
    assert "image" not in written
    assert "caption" not in written
    assert written["timing_ms"].keys() == {"queue", "embed", "total"}
    assert (result.embedding.model, result.embedding.revision) == ("clip", "c1")
    assert result.metadata == {"search": 1}


@pytest.mark.parametrize("request_", [REQUEST, Request(id="t", text="x")], ids=["image", "text"])
def test_error_names_the_image_that_failed(request_: Request) -> None:
    """By its URI, as sent; a text has none."""
    error = ErrorOutcome(
        request=request_, code=Code.TEXT_TOO_LONG, message="", attempts=1, timing=TimingMs()
    )
    result, letter = _writer().write(signed_record(request_), error, NOW)
    image = orjson.loads(result.value).get("image")
    assert image == ({"uri": "file:///a.png"} if request_ is REQUEST else None)
    assert _headers(letter)[headers.DLQ_STAGE] == "infer"


def test_result_is_signed_for_the_results_topic() -> None:
    """A reader verifies it like a request, and it is of no use on the ingest topic."""
    [out] = _writer().write(signed_record(REQUEST, key=b"k"), _ok(), NOW)
    signed = Verifier(KEYS, RESULTS).verify(out.headers, out.key, out.value)
    assert (signed.id, signed.timestamp) == ("a", NOW)
    assert out.key == b"k"


def test_result_without_a_key_is_keyed_by_its_id() -> None:
    """So that a compacted results topic keeps the last of each id."""
    [out] = _writer().write(signed_record(REQUEST), _ok(), NOW)
    assert out.key == b"a"


def test_result_does_not_take_over_a_key_that_would_fill_its_topic() -> None:
    """It is keyed by its id, and signed like that."""
    longest = b"k" * MAX_RESULT_KEY_BYTES
    error = ErrorOutcome(
        request=REQUEST, code=Code.NOT_FOUND, message="", attempts=1, timing=TimingMs()
    )
    for key, expected in ((longest, longest), (longest + b"k", b"a"), (b"k" * 1_040_000, b"a")):
        result, letter = _writer().write(signed_record(REQUEST, key=key), error, NOW)
        assert result.key == expected
        assert Verifier(KEYS, RESULTS).verify(result.headers, result.key, result.value).id == "a"
        assert _batch_length(result) <= KAFKA_LIMIT_BYTES
        assert _batch_length(letter) <= KAFKA_LIMIT_BYTES


def test_result_is_a_cloud_event() -> None:
    """The headers of CloudEvents 1.0 in binary mode are there."""
    [out] = _writer().write(signed_record(REQUEST), _ok(), NOW)
    found = _headers(out)
    assert found["ce_specversion"] == "1.0"
    assert found["ce_id"] == "a"
    assert found["ce_time"] == "2025-11-24T16:00:00.000Z"
    assert found["content-type"] == "application/json"


def test_error_is_a_result_and_a_dead_letter_with_the_same_code() -> None:
    """A failed image is answered and kept."""
    error = ErrorOutcome(
        request=REQUEST, code=Code.NOT_FOUND, message="gone", attempts=3, timing=TimingMs()
    )
    result, letter = _writer().write(signed_record(REQUEST), error, NOW)
    said = decode_result(result.value)
    assert said.error is not None
    assert (said.status, said.error.code, said.error.attempts) == ("error", Code.NOT_FOUND, 3)
    assert _headers(letter)[headers.DLQ_CODE] == "not_found"
    assert _headers(letter)[headers.DLQ_STAGE] == "fetch"
    assert _headers(letter)[headers.DLQ_DELIVERY_COUNT] == "3"


def test_refusal_is_a_dead_letter_alone() -> None:
    """Nothing is said to somebody who could not sign."""
    outs = _writer().write(signed_record(REQUEST), _refused(signed_record(REQUEST)), NOW)
    assert [out.topic for out in outs] == [DLQ]


def test_repeat_says_nothing() -> None:
    """A repeat adds no record; only its offset is committed."""
    assert _writer().write(signed_record(REQUEST), RepeatOutcome(id="a"), NOW) == []


def test_second_pass_replaces_the_dead_letter_headers() -> None:
    """A record that was redriven does not grow with every pass."""
    record = signed_record(REQUEST)
    [first] = _writer().write(record, _refused(record), NOW)
    again = signed_record(REQUEST, headers=first.headers, offset=9)
    [second] = _writer().write(again, _refused(again), NOW)
    assert len(second.headers) == len(first.headers)
    assert _headers(second)[headers.DLQ_OFFSET] == "9"


def test_long_reason_is_cut_between_characters() -> None:
    """The reason fits its header, in whole characters."""
    record = signed_record(REQUEST)
    [letter] = _writer().write(record, _refused(record, Code.INVALID, "é" * 1000), NOW)
    reason = dict(letter.headers)[headers.DLQ_MESSAGE]
    assert len(reason) <= MAX_REASON_BYTES
    assert set(reason.decode()) == {"é"}


def test_value_too_large_for_the_topic_is_replaced_by_its_digest() -> None:
    """A dead letter must not fail on the size of what it tells of."""
    value = b"x" * (MAX_DEAD_LETTER_BYTES + 1)
    record = signed_record(REQUEST, value=value)
    [letter] = _writer().write(record, _refused(record, Code.TOO_LARGE), NOW)
    assert _headers(letter)[headers.DLQ_TRUNCATED] == "true"
    assert hashlib.sha256(value).hexdigest().encode() in letter.value
    assert _headers(letter)["sig-id"] == "a"


def test_headers_too_large_for_the_topic_are_left_out() -> None:
    """A megabyte of headers does not stop the worker either."""
    record = signed_record(REQUEST, headers=[("h", b"x" * (MAX_DEAD_LETTER_BYTES + 1))])
    [letter] = _writer().write(record, _refused(record), NOW)
    assert "h" not in _headers(letter)
    assert _headers(letter)[headers.DLQ_TOPIC] == INGEST


@pytest.mark.parametrize(
    ("key", "value", "sent"),
    [
        (None, b"x", [("a", None)] * 349_490),
        (None, b"x", [("a", b"")] * 349_490),
        (None, b"x", [("€" * 349_490, b"")]),
        (None, b"x", [(f"{number:06}", b"1") for number in range(100_000)]),
        (b"k" * 1_048_500, None, []),
        (b"k" * 999_850, None, []),
        (None, b"x" * 999_850, []),
        (None, b"x" * 1_048_500, []),
        (None, b"x" * 500_000, [("€" * 166_600, b"")]),
    ],
)
def test_record_that_fitted_the_ingest_topic_fits_the_dead_letters(
    key: bytes | None, value: bytes | None, sent: tuple[tuple[str, bytes], ...]
) -> None:
    """However its bytes are spread: anybody can write it, and a partition would stop at it."""
    record = signed_record(REQUEST, key=key, value=value, headers=sent)
    writer = _writer(group_id="g" * 255)
    [letter] = writer.write(record, _refused(record, Code.UNSIGNED, "€" * 999), NOW)
    assert _batch_length(letter) <= KAFKA_LIMIT_BYTES
    assert dict(letter.headers)[headers.DLQ_CODE] == b"unsigned"
