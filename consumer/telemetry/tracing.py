"""Traces of records if TRACING is set; OpenTelemetry is imported only then."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consumer.partition.worker import Commit, Write
from imagelane.exits import ExitCode, FatalError

Wrap = Callable[[Write, Commit], tuple[Write, Commit]]


def untraced(write: Write, commit: Commit) -> tuple[Write, Commit]:
    """Return both unchanged."""
    return write, commit


@asynccontextmanager
async def open_tracing(wanted: bool, group_id: str) -> AsyncIterator[Wrap]:
    """Open the function that adds tracing to a worker's `write` and `commit`, if `wanted`.

    Raises:
        FatalError: `SETTINGS`: tracing is wanted, and the extra `otel` is not installed.
    """
    if not wanted:
        yield untraced
        return
    try:
        from consumer.telemetry.record_spans import RecordTracer
    except ImportError as exc:
        raise FatalError(
            ExitCode.SETTINGS, f"TRACING: {exc}; pip install 'imagelane[otel]'"
        ) from exc
    async with RecordTracer(group_id) as tracer:
        yield tracer.wrap
