"""`python -m examples.up`, or `make up`: broker, consumer, gallery, a watched folder, until Ctrl-C.

`PICTURES=DIR` watches another folder, `MODELS=hub` takes the real checkpoints, `BOOTSTRAP_SERVERS`
a cluster instead of the embedded broker.
"""

import asyncio
import os
import signal
import sys

from examples.demo.plan import Plan
from examples.up.run import up
from imagelane.exits import FatalError
from imagelane.terminal import say


def main() -> int:
    """Run until Ctrl-C or SIGTERM, and return the exit code."""
    try:
        asyncio.run(_main())
    except FatalError as error:
        say(f"up: {error}", err=True)
        return error.code
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("up: everything is down; what was done stays in build/up")
    return 0


async def _main() -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    environment = dict(os.environ)
    await up(Plan.for_up(environment), environment)


if __name__ == "__main__":
    sys.exit(main())
