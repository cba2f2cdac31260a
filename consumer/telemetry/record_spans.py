"""OpenTelemetry spans: one for each record, made when its outcome is encoded, and one a commit.

Times come from the outcome, so `record/` knows no tracing. The span of a commit links to those of
its records. Only verified records are traced, so nobody else can join a trace by a `traceparent`.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from consumer.outcome import ErrorOutcome, OkOutcome, Outcome
from consumer.partition.worker import Commit, Write
from imagelane.position import Position
from schemas import OutgoingRecord, Record, headers

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_FLUSH_MS: Final = 1000
_Traced = OkOutcome | ErrorOutcome


class RecordTracer:
    """Traces the records of a consumer group, by default with the process's tracer provider."""

    def __init__(self, group_id: str, provider: TracerProvider | None = None) -> None:
        self._group_id = group_id
        self._provider = provider or trace.get_tracer_provider()
        self._tracer = self._provider.get_tracer("imagelane")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send the remaining spans: the process ends by `os._exit`, which runs no exit handler."""
        flush = getattr(self._provider, "force_flush", None)  # the SDK has it, the API does not
        if flush is not None:
            await asyncio.to_thread(flush, _FLUSH_MS)

    def wrap(self, write: Write, commit: Commit) -> tuple[Write, Commit]:
        """Return one worker's `write` and `commit` with tracing added."""
        written: list[SpanContext] = []

        def write_and_trace(record: Record, outcome: Outcome, now: float) -> list[OutgoingRecord]:
            outputs = write(record, outcome, now)
            if not isinstance(outcome, OkOutcome | ErrorOutcome):
                return outputs
            span = self._trace(record, outcome)
            written.append(span.get_span_context())
            parent = _traceparent(span)
            result, *dead_letters = outputs
            return [
                _with_header(result, headers.TRACEPARENT, parent),
                *(_with_header(each, headers.DLQ_TRACEPARENT, parent) for each in dead_letters),
            ]

        async def commit_and_trace(outputs: Sequence[OutgoingRecord], position: Position) -> None:
            links = [Link(context) for context in written if context.is_valid]
            written.clear()
            with self._commit_span(outputs, links):
                await commit(outputs, position)

        return write_and_trace, commit_and_trace

    def _commit_span(
        self, outputs: Sequence[OutgoingRecord], links: list[Link]
    ) -> AbstractContextManager[Span]:
        # A transaction has records of several traces, so its span starts a trace of its own.
        return self._tracer.start_as_current_span(
            "send",
            context=Context(),
            kind=SpanKind.PRODUCER,
            links=links,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.consumer.group.name": self._group_id,
                "messaging.batch.message_count": len(outputs),
            },
        )

    def _trace(self, record: Record, outcome: _Traced) -> Span:
        """Return the record's finished span."""
        stages, start_ms, total_ms = _times(record, outcome)
        span = self._tracer.start_span(
            f"process {record.topic}",
            context=_context_of(record),
            kind=SpanKind.CONSUMER,
            start_time=_ns(start_ms),
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.consumer.group.name": self._group_id,
                "messaging.kafka.offset": record.offset,
                "messaging.message.id": outcome.request.id,
            },
        )
        inside = trace.set_span_in_context(span)
        for name, begin_ms, end_ms in stages:
            child = self._tracer.start_span(name, context=inside, start_time=_ns(begin_ms))
            child.end(_ns(end_ms))
        if isinstance(outcome, ErrorOutcome):
            span.set_attribute("error.type", str(outcome.code))
            span.set_status(Status(StatusCode.ERROR))
        span.end(_ns(start_ms + total_ms))
        return span


def _times(record: Record, outcome: _Traced) -> tuple[list[tuple[str, float, float]], float, float]:
    """Return the stages with begin and end, when the record was taken, and how long it took."""
    if isinstance(outcome, OkOutcome):
        image = outcome.image
        fetch_ms, decode_ms = (image.fetch_ms, image.decode_ms) if image else (None, None)
        queue_ms, total_ms, inferred = outcome.queue_ms, outcome.total_ms, True
    else:
        timing = outcome.timing
        fetch_ms, decode_ms, inferred = timing.fetch, timing.decode, timing.decode is not None
        queue_ms, total_ms = timing.queue or 0.0, timing.total or 0.0
    start_ms = at_ms = record.timestamp_ms + queue_ms
    stages = []
    for name, ms in (("fetch", fetch_ms), ("decode", decode_ms)):
        if ms is not None:
            stages.append((name, at_ms, at_ms + ms))
            at_ms += ms
    if inferred:
        stages.append(("infer", at_ms, max(at_ms, start_ms + total_ms)))
    return stages, start_ms, total_ms


def _context_of(record: Record) -> Context:
    """Return the context of the one `traceparent`; without exactly one, of a new trace."""
    found = [value for name, value in record.headers if name == headers.TRACEPARENT]
    carrier = {}
    if len(found) == 1 and found[0]:
        carrier["traceparent"] = found[0].decode("ascii", errors="replace")
    return _PROPAGATOR.extract(carrier, Context())


def _traceparent(span: Span) -> str | None:
    if not span.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier["traceparent"]


def _with_header(out: OutgoingRecord, name: str, value: str | None) -> OutgoingRecord:
    if value is None:
        return out
    return replace(out, headers=[*out.headers, (name, value.encode())])


def _ns(unix_ms: float) -> int:
    return round(unix_ms * 1000) * 1000  # a float of this size resolves no nanoseconds
