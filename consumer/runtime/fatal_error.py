"""The last line of a process whose log is JSON: why it ends."""

import sys
import threading
import traceback
from datetime import UTC, datetime

import orjson

from imagelane.exits import ExitCode
from imagelane.terminal import json_line


def fatal_error_line(reason: str, code: ExitCode, **more: object) -> str:
    """Return the event `fatal error` as one line of JSON, in the format of the log.

    Not by structlog: it is not set up while a setting is wrong, and a thread that hangs may hold
    its lock.
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
    """Return the stack of each thread by the thread's name, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, str(ident)): [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_stack(at)
        ]
        for ident, at in sys._current_frames().items()
    }
