"""`python -m examples.demo`, or `make demo`: the only place of the demo that reads the environment.

`MODELS=hub` takes the real checkpoints, `PICTURES=DIR` pictures of your own, `BOOTSTRAP_SERVERS` a
cluster instead of the embedded broker. Exit code 0 if all came as it must, else 1.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
import time

from examples.demo.plan import Plan
from examples.demo.run import run
from examples.demo.screen import Screen
from imagelane.exits import ExitCode, FatalError

_INTERRUPTED = 130


def main() -> int:
    """Run the demo and return the exit code."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters comes as one error
    screen = Screen(time.monotonic())
    try:
        plan = Plan.from_env(os.environ, secrets.token_hex(4))
        faults = asyncio.run(_interruptible(plan, screen))
    except (FatalError, TimeoutError) as error:  # the latter from the publisher: no result in time
        faults = [str(error)]
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.say("interrupted; everything is down again", "yellow")
        return _INTERRUPTED
    screen.verdict(faults)
    return ExitCode.FAILED if faults else ExitCode.OK


async def _interruptible(plan: Plan, screen: Screen) -> list[str]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: with everything down."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run(plan, screen, os.environ)


if __name__ == "__main__":
    sys.exit(main())
