"""The `consume` command. It takes the signals before what takes seconds to import."""

import typer

from consumer.runtime.stop import StopRequest


def consume(context: typer.Context) -> None:
    """Run the GPU side until SIGTERM or Ctrl-C."""
    stop = StopRequest()
    stop.listen()
    from consumer.command_line import run

    run(context.obj, stop)
