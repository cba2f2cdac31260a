"""The `check` command; it imports the rest, which takes most of a second, only when it runs."""

import typer


def check(context: typer.Context) -> None:
    """Look at settings, broker, topics, device and models.

    A line for each, with what is wrong and what to do; ends with the code of the first fault.

    \b
    Example:
      imagelane check
    """
    from consumer.command_line import check

    check(context.obj)
