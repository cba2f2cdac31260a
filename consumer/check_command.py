"""The `check` command, apart from what takes most of a second to import: its help is quick."""

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
