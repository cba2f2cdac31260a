"""Logging on standard error: one line an event, JSON for machines or columns for people."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO, cast

import structlog

from consumer.runtime.live_line import LiveLine
from consumer.runtime.readiness import REPEAT_SECONDS
from imagelane.terminal import AboveLiveLine, keep_live_line

_SHARED: Final[list[structlog.typing.Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]


def _head_first(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put time, level and event in front, where a reader looks first."""
    head = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    return {**head, **event}


class ClientErrors(logging.Handler):
    """Logs the errors of the Kafka client as warnings: the consumer logs their consequences itself.

    Each is logged once a minute at most: the client repeats ten times a second that a broker is
    missing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.ERROR)
        self._clock = clock
        self._logged_at: dict[tuple[str, str], float] = {}  # by logger and message template

    def emit(self, record: logging.LogRecord) -> None:
        """Log it without its traceback, unless the same was logged within the minute."""
        cause, now = (record.name, str(record.msg)), self._clock()
        if now - self._logged_at.get(cause, float("-inf")) < REPEAT_SECONDS:
            return
        self._logged_at[cause] = now
        error = record.exc_info[1] if record.exc_info else None
        reason = record.getMessage() + (f": {error!r}" if error else "")
        structlog.get_logger().warning("kafka client", part=record.name, reason=reason)


def configure(log_format: str, log_level: str) -> LiveLine | None:
    """Set up structlog, also for the warnings of the libraries; return the live line, if any.

    The format is `console`, `json` or `auto`: console if standard error is a terminal.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer()
    )
    level = getattr(logging, log_level.upper())
    live, shared, stream = None, _SHARED, cast(TextIO, sys.stderr)
    if console and sys.stderr.isatty() and level == logging.INFO:
        live = LiveLine()
        shared, stream = [live.process, *_SHARED], cast(TextIO, AboveLiveLine())
        keep_live_line(live.text)
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, _head_first, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Not by the renderer: on a terminal it would show each frame's variables.
                structlog.processors.format_exc_info,
                renderer,
            ],
            foreign_pre_chain=_SHARED,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    client = logging.getLogger("aiokafka")
    client.propagate = level <= logging.DEBUG
    client.handlers = [] if client.propagate else [ClientErrors()]
    return live
