"""SIGTERM and Ctrl-C. Imports little, so that the handlers are set before the slow imports."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from imagelane.interrupts import SIGNALS

_BASE: Final = 128  # shells report the end by a signal as this plus its number


class StopRequest:
    """Whether a signal asked the process to stop.

    A plain handler sets a flag. asyncio's handlers write into a pipe shared with callbacks of
    threads, and lose the signal if that is full.
    """

    def __init__(self) -> None:
        self._when_asked: Callable[[], None] | None = None
        self.asked = False

    def listen(self) -> None:
        """Handle the signals. Until `stop_in_order` the first one ends the process."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def stop_in_order(self, when_asked: Callable[[], None]) -> None:
        """Have the first signal set `asked` and call `when_asked`, the second end the process.

        `when_asked` runs between any two instructions of the main thread: it must take no lock.
        """
        self._when_asked = when_asked

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._when_asked is None or self.asked:
            # Not by an exception, which an import, a callback or a library may swallow. The system
            # frees all resources, and the next owner repeats uncommitted records.
            os._exit(_BASE + number)
        self.asked = True
        self._when_asked()
