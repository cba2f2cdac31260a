"""The command `imagelane`. It handles Ctrl-C before the other imports, which take a while."""

import sys

from imagelane.interrupts import end_at_once


def main() -> int:
    """Run the command line and return the exit code."""
    end_at_once("imagelane")
    from imagelane.cli import CONSUMER, PRODUCER, SETTINGS, run

    return run("imagelane", {**PRODUCER, **CONSUMER, **SETTINGS})


if __name__ == "__main__":
    sys.exit(main())
