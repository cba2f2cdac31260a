"""The `check` command; it imports the rest, which takes most of a second, only when it runs."""

import typer

from imagelane.interrupts import end_at_once, raise_interrupts


def check(context: typer.Context) -> None:
    """Look at settings, broker, topics, device and models.

    A line for each, with what is wrong and what to do; ends with the code of the first fault.

    \b
    Example:
      imagelane check
    """
    end_at_once("imagelane")
    from consumer.command_line import check

    raise_interrupts()
    check(context.obj)
