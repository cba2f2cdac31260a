"""SIGTERM and Ctrl-C. Imports little, since a signal may come before anything is imported."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_BASE: Final = 128  # shells report the end by a signal as this plus its number


class StopRequest:
    """Whether somebody asked the process to stop.

    A plain handler sets a flag. asyncio's would write into a pipe that callbacks of threads share,
    and lose the signal where that is full.
    """

    def __init__(self) -> None:
        self._when_asked: Callable[[], None] | None = None
        self.asked = False

    def listen(self) -> None:
        """Take the signals. Until `stop_in_order` the first one ends the process."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def stop_in_order(self, when_asked: Callable[[], None]) -> None:
        """From now on the first signal sets `asked` and calls this; the second ends the process.

        `when_asked` runs between any two instructions of the main thread: it must take no lock.
        """
        self._when_asked = when_asked

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._when_asked is None or self.asked:
            # Not by an exception: an import, a callback or a library may swallow one. Nothing is
            # held that the system does not take back, and nothing uncommitted is lost.
            os._exit(_BASE + number)
        self.asked = True
        self._when_asked()
