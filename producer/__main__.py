"""`python -m producer`: the ingestion side of `imagelane`. The handler of Ctrl-C comes first."""

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130
_LINE = "producer: interrupted"


def main() -> int:
    """Run the command line and return the exit code."""
    from imagelane.cli import PRODUCER, SETTINGS, run

    # From here on Ctrl-C is an exception, so that the command still counts what it published.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run("producer", {**PRODUCER, **SETTINGS})
    except KeyboardInterrupt:
        sys.stderr.write(f"{_LINE}\n")
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    """End at once: an exception would print a traceback from the middle of an import."""
    os.write(sys.stderr.fileno(), f"{_LINE}\n".encode())
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _end)
    sys.exit(main())
