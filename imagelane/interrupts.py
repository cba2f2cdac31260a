"""SIGTERM and Ctrl-C, before and while a command runs.

Imports little, so that the first handler is set before the slow imports.
"""

import os
import signal
import sys
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_INTERRUPTED: Final = 130  # as `ExitCode.INTERRUPTED`, which is not imported yet


def end_at_once(name: str) -> None:
    """Have the signals end the process with a line of `name`: while modules are imported.

    Not by an exception: an import may swallow it or print its traceback, and orjson crashes on one.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), f"{name}: interrupted\n".encode())
        os._exit(_INTERRUPTED)

    for number in SIGNALS:
        signal.signal(number, end)


def raise_interrupts() -> None:
    """Have the signals raise KeyboardInterrupt, so that a command still says what it did.

    A stop of the container ends a command as Ctrl-C does: as the first process there, it has no
    other handler.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Whatever handles Ctrl-C now: asyncio cancels its main task, between two steps of it.
    signal.raise_signal(signal.SIGINT)
