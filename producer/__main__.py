"""`python -m producer`: the ingestion side of `imagelane`. Ctrl-C is taken first."""

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130
_LINE = "producer: interrupted"


def main() -> int:
    """Run the command line and return the exit code."""
    from imagelane.cli import PRODUCER, SETTINGS, run

    # From here on it is an exception, so that what was published is still waited for and counted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run("producer", {**PRODUCER, **SETTINGS})
    except KeyboardInterrupt:
        sys.stderr.write(f"{_LINE}\n")
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    """End at once: an exception would be a traceback from the middle of some import."""
    os.write(sys.stderr.fileno(), f"{_LINE}\n".encode())
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _end)
    sys.exit(main())
