"""The command `imagelane`; `python -m producer` and `python -m consumer` run a part of it.

A subcommand's module is imported when it is called: `imagelane --help` stays quick, and the
ingestion side needs no torch.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperGroup

from imagelane.env import Environment, read_environment
from imagelane.exits import ExitCode, FatalError, OutputClosed, fatal_error_in
from imagelane.interrupts import end_at_once, raise_interrupts
from imagelane.namesakes import Shadowed, check_namesakes
from imagelane.terminal import say, say_fatal

_HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subcommand:
    """A subcommand: its function as `module:name`, its summary in one line, the extra it needs."""

    target: str
    summary: str
    extra: str | None = None


PRODUCER: Final = {
    "publish": Subcommand(
        target="producer.cli.publish_command:publish",
        summary="Publish images; with --wait show what becomes of each.",
    ),
    "results": Subcommand(
        target="producer.cli.results_command:results",
        summary="Show the results, each verified, or write them to a file.",
    ),
    "gallery": Subcommand(
        target="producer.cli.gallery_command:gallery",
        summary="Show the results on a page, and find pictures by words.",
        extra="gallery",
    ),
    "search": Subcommand(
        target="producer.cli.search_command:search",
        summary="Find the pictures that are nearest to some words.",
    ),
    "index": Subcommand(
        target="producer.cli.index_command:index",
        summary="Write the results, each verified, into PostgreSQL with pgvector.",
        extra="index",
    ),
    "redrive": Subcommand(
        target="producer.cli.redrive_command:redrive",
        summary="Sign dead letters again and publish them once more.",
    ),
    "reembed": Subcommand(
        target="producer.cli.reembed_command:reembed",
        summary="Publish anew what another model embedded.",
    ),
    "topics": Subcommand(
        target="producer.cli.topics_command:topics",
        summary="Create the topics; say what exists and what differs.",
    ),
    "status": Subcommand(
        target="producer.cli.status_command:status",
        summary="Show members, backlog, last result and dead letters.",
    ),
    "sign": Subcommand(
        target="producer.cli.lines_command:sign",
        summary="Sign JSON values for kafka-console-producer or kcat.",
    ),
    "verify": Subcommand(
        target="producer.cli.lines_command:verify",
        summary="Verify lines of `sign` or of kafka-console-consumer.",
    ),
}
CONSUMER: Final = {
    "consume": Subcommand(
        target="consumer.consume_command:consume",
        summary="Run the GPU side until SIGTERM or Ctrl-C.",
        extra="consumer",
    ),
    "check": Subcommand(
        target="consumer.check_command:check",
        summary="Look at settings, broker, topics, device and models.",
        extra="consumer",
    ),
}
SETTINGS: Final = {
    "settings": Subcommand(
        target="imagelane.settings_command:settings",
        summary="Show the settings in force, and where each came from.",
    ),
}


def run(name: str, commands: Mapping[str, Subcommand], default: str | None = None) -> int:
    """Run one of the commands, by default `default`, and return the exit code.

    A fault ends it with one line on stderr, after `name`.
    """
    arguments = sys.argv[1:] or ([default] if default else [])
    try:
        app = application(commands, rich=sys.stdout.isatty())
        app(arguments, prog_name="imagelane", obj=read_environment())
    except OutputClosed:  # as by `| head`
        return ExitCode.OK
    except (FatalError, BaseExceptionGroup) as error:
        if (fatal := fatal_error_in(error)) is None:
            raise
        say_fatal(name, fatal)
        return fatal.code
    except KeyboardInterrupt:
        say(f"{name}: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        if end.code == ExitCode.INTERRUPTED:  # typer's code for Ctrl-C
            say(f"{name}: interrupted", err=True)
        return end.code if isinstance(end.code, int) else 0
    finally:
        end_at_once(name)
    return 0


def application(commands: Mapping[str, Subcommand], *, rich: bool) -> typer.Typer:
    """Return the command line; `rich` decorates help and errors, for a terminal."""

    class Group(_LazyGroup):
        subcommands = commands
        markup = "rich" if rich else None

    app = typer.Typer(
        name="imagelane",
        cls=Group,
        help="CLIP embeddings and BLIP captions for signed image references, over Kafka.",
        epilog="Settings come from the environment or .env; `imagelane settings` shows them.",
        context_settings=_HELP,
        rich_markup_mode="rich" if rich else None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_versioned)
    for name, command in commands.items():
        app.command(name, help=command.summary, short_help=command.summary)(_placeholder)
    return app


class _LazyGroup(TyperGroup):
    subcommands: ClassVar[Mapping[str, Subcommand]]
    markup: ClassVar[Any]

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Replace the placeholder of the called or completed command by the command."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and _load(name or "", self.subcommands[name or ""], self.markup), rest


def _load(name: str, command: Subcommand, markup: Any) -> Any:
    module, _, attribute = command.target.partition(":")
    try:
        check_namesakes()
        function = getattr(import_module(module), attribute)
    except Shadowed as exc:
        raise FatalError(ExitCode.FAILED, str(exc)) from exc
    except ModuleNotFoundError as exc:
        extra = f"; pip install 'imagelane[{command.extra}]'" if command.extra else ""
        message = f"`{name}` needs the package {exc.name}{extra}"
        raise FatalError(ExitCode.FAILED, message) from exc
    raise_interrupts()
    if module.startswith("producer."):
        # aiokafka logs each failed attempt, and the last one becomes our error anyway.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    app = typer.Typer(
        add_completion=False,
        context_settings=_HELP,
        rich_markup_mode=markup,
        pretty_exceptions_enable=False,
    )
    app.command(name, help=_unwrapped(function.__doc__ or ""))(function)
    loaded = typer.main.get_command(app)
    connection = typer.Typer(add_completion=False, rich_markup_mode=markup)
    connection.command()(_connection)
    loaded.params += typer.main.get_command(connection).params
    return loaded


def _unwrapped(docstring: str) -> str:
    """Join the lines of each paragraph: the terminal wraps them. After a backspace they stay."""
    paragraphs = cleandoc(docstring).split("\n\n")
    return "\n\n".join(
        text if text.startswith("\b") else text.replace("\n", " ") for text in paragraphs
    )


def _placeholder() -> None:
    """Never called: `resolve_command` replaces it."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"imagelane {version('imagelane')}")
        raise typer.Exit


def _versioned(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """CLIP embeddings and BLIP captions for signed image references, over Kafka."""


def _take_brokers(context: typer.Context, value: str | None) -> None:
    _override(context, "--brokers", "BOOTSTRAP_SERVERS", value)


def _take_secret_file(context: typer.Context, value: Path | None) -> None:
    if value is not None:
        # The variable would win over the file.
        _override(context, "--secret-file", "SECRET_API_KEY", "")
        _override(context, "--secret-file", "SECRET_API_KEY_FILE", str(value))


def _override(context: typer.Context, option: str, name: str, value: str | None) -> None:
    if value is not None:
        environment: Environment = context.obj
        context.obj = environment.with_option(option, {name: value})


def _connection(
    brokers: Annotated[
        str | None,
        typer.Option(
            "--brokers",
            "-b",
            metavar="HOST:PORT",
            help="Kafka brokers, by comma; instead of BOOTSTRAP_SERVERS.",
            callback=_take_brokers,
            expose_value=False,
            rich_help_panel="Connection",
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="File with the shared secret; instead of SECRET_API_KEY.",
            callback=_take_secret_file,
            expose_value=False,
            rich_help_panel="Connection",
        ),
    ] = None,
) -> None:
    """Options of every subcommand."""
