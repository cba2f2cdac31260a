"""The last line of a process: why it ends, as a line of text, or of JSON where the log is JSON."""

import sys
import threading
import traceback
from datetime import UTC, datetime

import orjson

from imagelane.exits import ExitCode
from imagelane.terminal import json_line


def fatal_error(reason: str, code: ExitCode, **more: object) -> str:
    """Return the event `fatal error` as one line of JSON, as the log's own lines are.

    Not by structlog: a setting may be at fault before it is set up, and a lock of its may be held
    by the thread that stands still.
    """
    event = {
        "time": datetime.now(UTC).isoformat(),
        "level": "error",
        "event": "fatal error",
        "reason": reason,
        "exit_code": int(code),
        **more,
    }
    return json_line(orjson.dumps(event).decode())


def stacks() -> dict[str, list[str]]:
    """Return where each thread of this process is, innermost call last, by its name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, str(ident)): [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_stack(at)
        ]
        for ident, at in sys._current_frames().items()
    }
