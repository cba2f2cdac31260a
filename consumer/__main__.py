"""`python -m consumer`. Handles signals before the other imports, which take seconds."""

import sys

from consumer.runtime.stop import StopRequest


def main() -> int:
    """Run the command line; without a subcommand, consume."""
    StopRequest().listen()
    from imagelane.cli import CONSUMER, SETTINGS, run

    return run("imagelane", {**CONSUMER, **SETTINGS}, default="consume")


if __name__ == "__main__":
    sys.exit(main())
