"""Traces of records, where TRACING asks for them; OpenTelemetry is imported only then."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consumer.partition.worker import Write
from imagelane.exits import ExitCode, FatalError


@asynccontextmanager
async def open_tracing(wanted: bool, group_id: str) -> AsyncIterator[Callable[[Write], Write]]:
    """Open what has to be put around a worker's `write`: nothing, unless it is wanted.

    Raises:
        FatalError: `SETTINGS`: it is wanted, and the extra `otel` is not installed.
    """
    if not wanted:
        yield lambda write: write
        return
    try:
        from consumer.runtime.record_spans import RecordTracer
    except ImportError as exc:
        raise FatalError(
            ExitCode.SETTINGS, f"TRACING: {exc}; pip install 'imagelane[otel]'"
        ) from exc
    async with RecordTracer(group_id) as tracer:
        yield tracer.around
