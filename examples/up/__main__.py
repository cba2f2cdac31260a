"""`python -m examples.up`, or `make up`: broker, consumer, gallery, a watched folder, until Ctrl-C.

`PICTURES=DIR` watches another folder, `MODELS=hub` takes the real checkpoints, `BOOTSTRAP_SERVERS`
a cluster instead of the embedded broker.
"""

import asyncio
import os
import signal
import sys

from examples.demo.plan import Plan
from examples.up.run import folder_of, own_address, up
from imagelane.exits import FatalError, fatal_error_in
from imagelane.terminal import say


def main() -> int:
    """Run until Ctrl-C or SIGTERM, and return the exit code."""
    try:
        asyncio.run(_main())
    except (FatalError, BaseExceptionGroup) as error:
        if (fatal := fatal_error_in(error)) is None:
            raise
        say(f"up: {fatal}", err=True)
        return fatal.code
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"up: everything is down; what was done stays in {folder_of(os.environ)}")
    return 0


async def _main() -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    environment = dict(os.environ)
    await up(Plan.for_up(environment, own_address(environment)), environment)


if __name__ == "__main__":
    sys.exit(main())
