"""Runs the commands `consume` and `check`, and ends the process with their exit code."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

import structlog

from consumer import check as surroundings
from consumer import service
from consumer.runtime import logging_setup
from consumer.runtime.fatal_error import fatal_error_line
from consumer.runtime.live_line import LiveLine
from consumer.runtime.stop import StopRequest
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, fatal_error_in
from imagelane.terminal import end_live_line, say, say_fatal


def run(environment: Mapping[str, str], stop: StopRequest) -> NoReturn:
    """Consume the ingest topic until `stop` is asked for, and end the process."""
    _run(environment, lambda settings, live: service.run(settings, stop, live))


def check(environment: Mapping[str, str]) -> NoReturn:
    """Check the surroundings, and end the process."""
    _run(environment, lambda settings, _: surroundings.run(settings))


def _run(
    environment: Mapping[str, str],
    main: Callable[[ConsumerSettings, LiveLine | None], Coroutine[Any, Any, None]],
) -> NoReturn:
    code = ExitCode.OK
    try:
        settings = ConsumerSettings.from_env(environment)
        live = logging_setup.configure(settings.log_format, settings.log_level)
        for line in ConsumerSettings.misspelt(environment):
            structlog.get_logger().warning("unknown setting", reason=line)
        # Never closed: to close it waits for all threads of the loop, as the end of Python does. A
        # thread that loads BLIP or looks up an address delayed a finished stop by 20 s.
        asyncio.Runner().run(main(settings, live))
    except BaseException as exc:  # noqa: BLE001 - the only broad one: every way to end passes here
        end_live_line()
        code = _exit_code(exc, is_json=environment.get("LOG_FORMAT") == "json")
    end_live_line()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(error: BaseException, *, is_json: bool) -> ExitCode:
    """Print in one line why the process ends; log a traceback only for an unforeseen error.

    If the log is JSON the line is too: a collector of logs reads nothing else.
    """
    fatal = fatal_error_in(error)
    if fatal and is_json:
        say(fatal_error_line(str(fatal), fatal.code), err=True)
        return fatal.code
    if fatal:
        say_fatal("imagelane", fatal)
        return fatal.code
    if isinstance(error, KeyboardInterrupt):
        say("imagelane: interrupted", err=True)
        return ExitCode.INTERRUPTED
    structlog.get_logger().error("unforeseen error, nothing of it is committed", exc_info=error)
    return ExitCode.BUG
