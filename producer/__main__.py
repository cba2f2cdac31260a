"""`python -m producer`: the ingestion side of `imagelane`."""

import sys

from imagelane.cli import PRODUCER, SETTINGS, run


def main() -> int:
    """Run the command line and return the exit code."""
    return run("producer", {**PRODUCER, **SETTINGS})


if __name__ == "__main__":
    sys.exit(main())
