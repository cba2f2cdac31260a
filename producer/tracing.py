"""Continue the caller's trace in the request (W3C Trace Context)."""

import sys

from schemas.headers import TRACEPARENT


def trace_headers() -> list[tuple[str, bytes]]:
    """Return the header of the caller's span; none without a span. No signature covers it."""
    if "opentelemetry.trace" not in sys.modules:  # this process has made no span
        return []
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    found = carrier.get(TRACEPARENT)
    return [(TRACEPARENT, found.encode())] if found else []
