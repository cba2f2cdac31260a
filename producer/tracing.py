"""The caller's trace goes on in the request, where there is one (W3C Trace Context)."""

import sys

from schemas.headers import TRACEPARENT


def trace_headers() -> list[tuple[str, bytes]]:
    """Return the header that names the span in which we are called; none outside of any.

    No signature covers it, as none covers any other header.
    """
    if "opentelemetry.trace" not in sys.modules:  # nobody in this process has made a span
        return []
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    found = carrier.get(TRACEPARENT)
    return [(TRACEPARENT, found.encode())] if found else []
