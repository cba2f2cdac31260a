"""The `consume` command. It handles signals before the other imports, which take seconds."""

from typing import Annotated

import typer

from consumer.runtime.stop import StopRequest
from imagelane.env import Environment


def consume(
    context: typer.Context,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="A line for each record, and LOG_LEVEL=debug."),
    ] = False,
) -> None:
    """Run the GPU side until SIGTERM or Ctrl-C.

    On a terminal one live line counts the records; elsewhere the log has a line for each.

    \b
    Example:
      CUDA_VISIBLE_DEVICES=0 imagelane consume
    """
    stop = StopRequest()
    stop.listen()
    from consumer.command_line import run

    environment: Environment = context.obj
    run(
        environment.with_option("--verbose", {"LOG_LEVEL": "debug"}) if verbose else environment,
        stop,
    )
