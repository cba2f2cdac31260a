"""The command line. Each command reads its settings, does its work, and ends with an exit code."""

import asyncio
import io
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from enum import StrEnum
from functools import partial
from typing import Annotated, BinaryIO

import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import say
from producer.cli.console_lines import format_console, format_kcat, id_of, parse_line
from producer.cli.line_checks import check_line
from producer.cli.progress import Tally
from producer.cli.publish_command import publish_all
from producer.cli.redrive_command import redrive
from producer.cli.references import STDIN, BadReference, count_entries, entries
from producer.cli.results_command import show_results
from producer.errors import TooLarge
from producer.settings import ProducerSettings, TopicSettings
from producer.topics import TIMESTAMP_TYPE, TopicReport, ensure_topics, topic_plans
from schemas import Refused, Signer, Task

_TOPIC_OF_LINES = typer.Option(help="The logical topic that the signature is made for.")


class LineFormat(StrEnum):
    CONSOLE = "console"
    KCAT = "kcat"


def application(*, rich: bool) -> typer.Typer:
    """Return the command line; `rich` decorates help and errors, for a terminal."""
    app = typer.Typer(
        name="python -m producer",
        help="Publish signed image requests to Kafka, and read what becomes of them.",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich" if rich else None,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (topics, publish, sign, verify, results, redrive):
        app.command()(command)
    return app


def topics(
    context: typer.Context,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Of ingest and results: one for each GPU. 1 if new."),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of each partition: 3 in production. 1 if new."),
    ] = None,
) -> None:
    """Create the ingest, results and dead letter topics; say what exists and what differs.

    Nothing that exists is changed. Needs no secret. Ends with 1 if the ingest topic has no
    LogAppendTime, for then freshness is not judged by the broker's clock.

    \b
    Example:
      python -m producer topics --partitions 4 --replication 3
    """
    settings = TopicSettings.from_env(context.obj)
    plans = topic_plans(settings, partitions=partitions, replication=replication)
    reports = asyncio.run(ensure_topics(settings, plans))
    for report in reports:
        say(_topic_line(report))
    weakened = any(d.setting == TIMESTAMP_TYPE for report in reports for d in report.differences)
    raise typer.Exit(ExitCode.FAILED if weakened else ExitCode.OK)


def publish(
    context: typer.Context,
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="REFERENCES",
            help="PATH, DIR, GLOB, URI, MANIFEST.jsonl or - for standard input. A line of the last "
            "two is a URI, a path, or JSON: a whole request, or uri, tasks, key, metadata.",
            show_default=False,
        ),
    ],
    tasks: Annotated[str, typer.Option(help="What to do, by comma.")] = "embed,caption",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results; show each.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders within folders, too.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="With --wait: give up after so many seconds of silence.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="With --wait: JSON lines.")] = False,
) -> None:
    """Publish images, and with --wait show one line a result: id, status, time, name, caption.

    Ends with 1 if anything failed, was refused or did not come in time.

    \b
    Examples:
      python -m producer publish pictures/ --wait
      python -m producer publish 'a/**/*.png' https://example.org/b.jpg --tasks embed
      printf 'file:///data/cat.jpg' | python -m producer publish - --wait --json
    """
    settings = ProducerSettings.from_env(context.obj)
    work = partial(
        publish_all,
        settings,
        tasks=_tasks(tasks),
        patience_seconds=timeout if wait else None,
        as_json=as_json,
    )
    tally = _publish(references, recursive, work)
    raise typer.Exit(ExitCode.FAILED if tally.failed else ExitCode.OK)


def sign(
    context: typer.Context,
    topic: Annotated[str, _TOPIC_OF_LINES],
    key: Annotated[str | None, typer.Option(help="Record key. Without it the key is null.")] = None,
    timestamp: Annotated[
        int | None, typer.Option(metavar="UNIX", help="Time of signing. Now if not given.")
    ] = None,
    format: Annotated[LineFormat, typer.Option(help="What each line is for.")] = LineFormat.CONSOLE,
) -> None:
    """Sign JSON values, one a line, from standard input to lines for kafka-console-producer.

    Pipe them into kafka-console-producer --reader-property parse.headers=true, and with --key also
    --reader-property parse.key=true (--property in older Kafka). `--format kcat` prints a
    command for each instead. The value's `id` becomes the signature's. Needs no broker.

    \b
    Example:
      echo '{"version":1,"id":"a1","image":{"uri":"file:///data/cat.jpg"}}' |
        python -m producer sign --topic image.ingest --key cats
    """
    settings = ProducerSettings.from_env(context.obj)
    signer = Signer(settings.keys, topic)
    brokers = ",".join(settings.bootstrap_servers)
    key_bytes = None if key is None else key.encode(errors="surrogateescape")
    failed = False
    for number, value in _stdin_lines():
        try:
            headers = signer.sign(
                id=id_of(value),
                timestamp=int(time.time()) if timestamp is None else timestamp,
                key=key_bytes,
                value=value,
            )
            if format is LineFormat.KCAT:
                line = format_kcat(topic, brokers, headers, key_bytes, value)
            else:
                line = format_console(headers, key_bytes, value)
        except ValueError as exc:
            failed = True
            say(f"line {number}: {exc}", err=True)
        else:
            typer.echo(line)
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)


def verify(
    context: typer.Context,
    topic: Annotated[str, _TOPIC_OF_LINES],
    at: Annotated[
        float | None,
        typer.Option(metavar="UNIX", help="Judge as if appended then, not as printed, nor now."),
    ] = None,
) -> None:
    """Verify lines of `sign`, or of kafka-console-consumer, as the reader of the topic would.

    The consumer must print headers and key (--formatter-property print.headers=true
    --formatter-property print.key=true; timestamp, partition and offset as you like). One line
    each: `ok ID`, or the code and the reason; ends with 1 if any is refused. Needs no broker.

    \b
    Example:
      python -m producer verify --topic image.ingest < lines.txt
    """
    settings = ProducerSettings.from_env(context.obj)
    refused = False
    for _, line in _stdin_lines():
        try:
            id = check_line(parse_line(line), topic, settings, at=at, now=time.time())
            say(f"ok {id}")
        except Refused as exc:
            refused = True
            say(f"{exc.code} {exc.reason}")
    raise typer.Exit(ExitCode.FAILED if refused else ExitCode.OK)


def results(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; end with Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The JSON of each result, as received.")
    ] = False,
) -> None:
    """Show the results topic from its beginning, each result verified.

    One that is not authentic is marked, and the command ends with 1.

    \b
    Example:
      python -m producer results --follow
    """
    settings = ProducerSettings.from_env(context.obj)
    unverifiable = asyncio.run(show_results(settings, follow=follow, as_json=as_json))
    raise typer.Exit(ExitCode.FAILED if unverifiable else ExitCode.OK)


def _publish(
    references: list[str], recursive: bool, work: Callable[..., Coroutine[None, None, Tally]]
) -> Tally:
    """Run `work` on what the references name; all that is wrong with them ends in one line."""
    try:
        total = count_entries(references, recursive=recursive)
        stdin = _own_stdin() if STDIN in references else io.BytesIO()
        if total == 0:
            raise BadReference(", ".join(references), "no image there; nothing to publish")
        tally = asyncio.run(
            work(entries(references, recursive=recursive, stdin=stdin), total=total)
        )
    except (BadReference, TooLarge) as exc:
        raise FatalError(ExitCode.FAILED, str(exc)) from exc
    except OSError as exc:
        raise FatalError(
            ExitCode.FAILED, f"{exc.filename or 'input'}: {exc.strerror or exc}"
        ) from exc
    if tally.ended == 0:
        raise FatalError(ExitCode.FAILED, "no reference on standard input; nothing to publish")
    return tally


def _topic_line(report: TopicReport) -> str:
    details = "; ".join(
        f"{difference.setting} is {difference.found}, wanted {difference.wanted}"
        for difference in report.differences
    )
    return f"{report.name}: {report.state}" + (f" ({details}); left as it is" if details else "")


def _tasks(names: str) -> tuple[Task, ...]:
    try:
        return tuple(Task(name.strip()) for name in names.split(","))
    except ValueError as exc:
        known = ", ".join(Task)
        raise typer.BadParameter(f"{exc}; tasks are {known}", param_hint="--tasks") from exc


def _own_stdin() -> BinaryIO:
    """Return a reader of its own on standard input.

    A thread may be blocked in it when the program ends, and the interpreter closes `sys.stdin`
    then: were it the one that is read, the interpreter would abort.
    """
    return open(0, "rb", closefd=False)


def _stdin_lines() -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) of the lines that are not blank, without their line ends."""
    if sys.stdin is None:
        raise FatalError(ExitCode.FAILED, "standard input is closed; there is nothing to read")
    for number, line in enumerate(sys.stdin.buffer, start=1):
        text = line.rstrip(b"\r\n")
        if text.strip():
            yield number, text
