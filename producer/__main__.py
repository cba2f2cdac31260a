"""`python -m producer`: the only place of the ingestion side that reads the environment."""

import logging
import os
import sys

from dotenv import dotenv_values

from imagelane.exits import FatalError
from imagelane.terminal import say
from producer.cli.commands import application

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return the exit code."""
    # The client logs each failed attempt; what matters comes back as one error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    given = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    try:
        application(rich=sys.stdout.isatty())(obj={**given, **os.environ})
    except FatalError as halt:
        say(f"producer: {halt}", err=True)
        return halt.code
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of Ctrl-C
            say("producer: interrupted", err=True)
        return end.code if isinstance(end.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
