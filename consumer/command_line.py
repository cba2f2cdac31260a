"""The command line: run, or `check` the surroundings. The environment is read here, once."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

import structlog
import typer
from dotenv import dotenv_values

from consumer import check, service
from consumer.runtime import logging_setup
from consumer.settings import ConsumerSettings, settings_table
from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import say

app = typer.Typer(
    help="The GPU side of imagelane: signed image references in, embeddings and captions out.",
    epilog="Settings come from the environment or .env; `python -m consumer settings` lists them.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def run(context: typer.Context) -> None:
    """Consume the ingest topic until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is None:
        _run(partial(service.run, stop=context.obj))


@app.command("check")
def check_surroundings() -> None:
    """Look at settings, broker, topics, device and models, and say what is wrong."""
    _run(check.run)


@app.command("settings")
def list_settings() -> None:
    """Print every setting with its default and meaning, as a Markdown table."""
    typer.echo(settings_table())


def _run(main: Callable[[ConsumerSettings], Coroutine[Any, Any, None]]) -> NoReturn:
    code = ExitCode.OK
    try:
        settings = ConsumerSettings.from_env(_environment())
        logging_setup.configure(settings)
        # Never closed: that would wait for every thread of the loop, as the end of Python would.
        # One of them may load BLIP or look for an address, and took 20 s of a stop that was over.
        asyncio.Runner().run(main(settings))
    except BaseException as exc:  # noqa: BLE001 - the single broad one: every way to end passes here
        code = _exit_code(exc)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _environment() -> dict[str, str]:
    file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**file, **os.environ}


def _exit_code(error: BaseException) -> ExitCode:
    """Say in one line why the process ends; a traceback only for what nobody foresaw."""
    while isinstance(error, BaseExceptionGroup):
        error = next(
            (e for e in error.exceptions if isinstance(e, FatalError)), error.exceptions[0]
        )
    if isinstance(error, FatalError):
        say(f"imagelane: {error}", err=True)
        return error.code
    structlog.get_logger().error("unforeseen error, nothing of it is committed", exc_info=error)
    return ExitCode.BUG
