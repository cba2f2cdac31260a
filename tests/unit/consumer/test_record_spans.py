"""Spans of records, as the SDK's exporter sees them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from consumer.outcome import (
    DeadLetterContent,
    ErrorOutcome,
    Inference,
    ModelIdentity,
    OkOutcome,
    Outcome,
    RefusedOutcome,
    RepeatOutcome,
)
from consumer.record.results import OutcomeEncoder
from consumer.telemetry.record_spans import RecordTracer
from imagelane.position import Position
from schemas import (
    Code,
    ImageReference,
    OutgoingRecord,
    Record,
    Request,
    Signer,
    Task,
    TimingMs,
    headers,
)
from tests.fakes import DLQ, FACTS, INGEST, KEYS, NOW, RESULTS, signed_record

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01".encode()
IDENTITY = ModelIdentity(model="tiny", revision="0")
WRITER = OutcomeEncoder(
    signer=Signer(KEYS, RESULTS),
    results_topic=RESULTS,
    dlq_topic=DLQ,
    group_id="g",
    embedder=IDENTITY,
    captioner=IDENTITY,
)
REQUEST = Request(id="a", image=ImageReference(uri="file:///a"), tasks=(Task.EMBED,))
INFERENCE = Inference(vector=None, caption=None, embed_ms=20.0, caption_ms=None)
OK = OkOutcome(request=REQUEST, image=FACTS, inference=INFERENCE, queue_ms=2000.0, total_ms=50.0)
ERROR = ErrorOutcome(
    request=REQUEST,
    code=Code.NOT_AN_IMAGE,
    message="no image",
    attempts=1,
    timing=TimingMs(queue=1000.0, fetch=4.0, decode=None, total=70.0),
)


def _record(*extra: tuple[str, bytes]) -> Record:
    record = signed_record(REQUEST, offset=7)
    return replace(record, headers=[*record.headers, *extra])


async def _committed(_: Sequence[OutgoingRecord], __: Position) -> None:
    """Commit to nowhere."""


def _traced(record: Record, outcome: Outcome) -> tuple[list[ReadableSpan], list[OutgoingRecord]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    write, _ = RecordTracer("g", provider).wrap(WRITER.write, _committed)
    outputs = write(record, outcome, float(NOW))
    return list(exporter.get_finished_spans()), outputs


def test_record_has_a_span_with_its_stages() -> None:
    """Named and described by the messaging conventions; the times are those of the outcome."""
    spans, _ = _traced(_record((headers.TRACEPARENT, TRACEPARENT)), OK)
    *stages, process = spans
    assert process.name == f"process {INGEST}"
    assert process.kind is SpanKind.CONSUMER
    assert process.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": INGEST,
        "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": "g",
        "messaging.kafka.offset": 7,
        "messaging.message.id": "a",
    }
    assert process.status.status_code is StatusCode.UNSET
    assert [stage.name for stage in stages] == ["fetch", "decode", "infer"]
    begin = (NOW * 1000 + 2000) * 10**6
    assert (process.start_time, process.end_time) == (begin, begin + 50 * 10**6)
    edges = [(stage.start_time, stage.end_time) for stage in stages]
    fetched = begin + int(FACTS.fetch_ms * 10**6)
    decoded = fetched + int(FACTS.decode_ms * 10**6)
    assert edges == [(begin, fetched), (fetched, decoded), (decoded, process.end_time)]
    for stage in stages:
        assert stage.parent is not None
        assert process.context is not None
        assert stage.parent.span_id == process.context.span_id


def test_result_and_dead_letter_carry_the_span() -> None:
    """The trace of the request goes on in the result; the dead letter keeps the request's own."""
    spans, (result, letter) = _traced(_record((headers.TRACEPARENT, TRACEPARENT)), ERROR)
    process = spans[-1]
    assert process.context is not None
    assert process.parent is not None
    assert f"{process.context.trace_id:032x}" == TRACE_ID
    assert headers.trace_id(result.headers) == TRACE_ID
    assert f"{process.parent.span_id:016x}" == PARENT_ID
    here = f"00-{TRACE_ID}-{process.context.span_id:016x}-01".encode()
    assert dict(result.headers)[headers.TRACEPARENT] == here
    assert dict(letter.headers)[headers.DLQ_TRACEPARENT] == here
    assert dict(letter.headers)[headers.TRACEPARENT] == TRACEPARENT
    assert headers.is_dead_letter_header(headers.DLQ_TRACEPARENT)


def test_error_has_its_code_and_the_stages_that_it_reached() -> None:
    """`error.type` is the code; nothing was decoded, so nothing was inferred."""
    *stages, process = _traced(_record(), ERROR)[0]
    assert process.attributes is not None
    assert process.attributes["error.type"] == "not_an_image"
    assert process.status.status_code is StatusCode.ERROR
    assert [stage.name for stage in stages] == ["fetch"]


@pytest.mark.parametrize(
    "found",
    [
        [],
        [b"nonsense"],
        [b"\xff" * 55],
        [b""],
        [f"00-{'0' * 32}-{PARENT_ID}-01".encode()],
        [TRACEPARENT, TRACEPARENT],
    ],
)
def test_request_without_a_trace_begins_one(found: list[bytes]) -> None:
    """As one whose header is no trace, or two."""
    record = _record(*((headers.TRACEPARENT, value) for value in found))
    process = _traced(record, OK)[0][-1]
    assert process.parent is None
    assert process.context is not None
    assert process.context.is_valid
    assert headers.trace_id(record.headers) is None


@pytest.mark.parametrize(
    "outcome",
    [
        RefusedOutcome(
            code=Code.BAD_SIGNATURE,
            reason="",
            content=DeadLetterContent(key=None, value=None, headers=(), truncated=False),
        ),
        RepeatOutcome(id="a"),
    ],
)
def test_stranger_joins_no_trace(outcome: Outcome) -> None:
    """A record that did not verify has no span, and its dead letter none of ours."""
    spans, outputs = _traced(_record((headers.TRACEPARENT, TRACEPARENT)), outcome)
    assert not spans
    assert not [name for out in outputs for name, _ in out.headers if "traceparent" in name]


async def test_commit_has_a_span_with_links_to_its_records() -> None:
    """Of this commit alone; one that fails says so, and fails all the same."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    faults: list[Exception] = []

    async def commit(_: Sequence[OutgoingRecord], __: Position) -> None:
        for fault in faults:
            raise fault

    write, commit_and_trace = RecordTracer("g", provider).wrap(WRITER.write, commit)
    outputs = [*write(_record(), OK, float(NOW)), *write(_record(), ERROR, float(NOW))]
    await commit_and_trace(outputs, Position.up_to(9))
    faults.append(OSError("the brokers are away"))
    with pytest.raises(OSError, match="away"):
        await commit_and_trace([], Position.up_to(9))

    spans = exporter.get_finished_spans()
    processed = [span.context.span_id for span in spans if span.name == f"process {INGEST}"]
    sent, failed = [span for span in spans if span.name == "send"]
    assert [link.context.span_id for link in sent.links] == processed
    assert len(processed) == 2
    assert sent.kind is SpanKind.PRODUCER
    assert sent.attributes is not None
    assert sent.attributes["messaging.batch.message_count"] == len(outputs) == 3
    assert (failed.links, failed.status.status_code) == ((), StatusCode.ERROR)
