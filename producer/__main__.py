"""`python -m producer`: the ingestion side of `imagelane`. It handles Ctrl-C before it imports."""

import sys

from imagelane.interrupts import end_at_once


def main() -> int:
    """Run the command line and return the exit code."""
    end_at_once("producer")
    from imagelane.cli import PRODUCER, SETTINGS, run

    return run("producer", {**PRODUCER, **SETTINGS})


if __name__ == "__main__":
    sys.exit(main())
