"""Ends the process from a thread of its own, since the event loop may be the part that hangs."""

import faulthandler
import os
import queue
import sys
import threading
from typing import Final

from consumer.runtime.fatal_error import fatal_error_line, stacks
from imagelane.exits import ExitCode

_DUMP_SECONDS: Final = 1.0  # a full pipe behind standard error would block the dump for ever


class ExitTimer:
    """At the set time, writes the reason and all threads' stacks and ends the process with STUCK.

    With `is_json` both are one line of JSON.
    """

    def __init__(self, reason: str, *, is_json: bool = False) -> None:
        self._reason, self._is_json = f"stuck: {reason}; nothing is lost, start again", is_json
        # `set` is called in signal handlers: only this queue's put() may interrupt another put().
        self._seconds: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="exit timer", daemon=True).start()

    def set(self, seconds: float | None) -> None:
        """End the process in `seconds` from now, unless set again; None: not at all."""
        self._seconds.put(seconds)

    def _run(self) -> None:
        seconds: float | None = None
        while True:
            try:
                seconds = self._seconds.get(timeout=seconds)
            except queue.Empty:
                break
        dump = threading.Thread(target=self._say, daemon=True)
        dump.start()
        dump.join(_DUMP_SECONDS)
        os._exit(ExitCode.STUCK)

    def _say(self) -> None:
        if self._is_json:
            line = fatal_error_line(self._reason, ExitCode.STUCK, stacks=stacks())
            os.write(sys.stderr.fileno(), f"{line}\n".encode())
        else:
            os.write(sys.stderr.fileno(), f"imagelane: {self._reason}\n".encode())
            faulthandler.dump_traceback()
