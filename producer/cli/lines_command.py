"""The `sign` and `verify` commands: lines of Kafka's console tools."""

import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import say
from producer.cli.console_lines import format_console, format_kcat, id_of, parse_line
from producer.cli.line_checks import check_line
from producer.cli.settings import load_settings
from producer.settings import ProducerSettings
from schemas import Refused, Signer

_TOPIC_OF_LINES = typer.Option(help="The logical topic that the signature is made for.")


class LineFormat(StrEnum):
    CONSOLE = "console"
    KCAT = "kcat"


def sign(
    context: typer.Context,
    topic: Annotated[str, _TOPIC_OF_LINES],
    key: Annotated[str | None, typer.Option(help="Record key. Without it the key is null.")] = None,
    timestamp: Annotated[
        int | None, typer.Option(metavar="UNIX", help="Time of signing. Now if not given.")
    ] = None,
    format: Annotated[LineFormat, typer.Option(help="What each line is for.")] = LineFormat.CONSOLE,
) -> None:
    """Sign JSON values for kafka-console-producer or kcat.

    Standard input has one value per line. Pipe the output into kafka-console-producer
    --reader-property parse.headers=true, and with --key also
    --reader-property parse.key=true (--property in older Kafka). `--format kcat` prints a
    command for each instead. The value's `id` becomes the signature's. Needs no broker.

    \b
    Example:
      echo '{"version":1,"id":"a1","image":{"uri":"file:///data/cat.jpg"}}' |
        imagelane sign --topic image.ingest --key cats
    """
    settings = load_settings(context, ProducerSettings)
    if topic not in settings.topics:
        say(f"{topic} is no topic of the settings: no reader takes what is signed for it", err=True)
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
    """Verify lines of `sign` or of kafka-console-consumer.

    The checks are those of the topic's reader. kafka-console-consumer must print headers and key
    (--formatter-property print.headers=true --formatter-property print.key=true; timestamp,
    partition and offset as you like). One line each: `ok ID`, or the code and the reason; ends
    with 1 if any is refused. Needs no broker.

    \b
    Example:
      imagelane verify --topic image.ingest < lines.txt
    """
    settings = load_settings(context, ProducerSettings)
    refused, is_empty = False, True
    for _, line in _stdin_lines():
        is_empty = False
        try:
            id = check_line(parse_line(line), topic, settings, at=at, now=time.time())
            say(f"ok {id}")
        except Refused as exc:
            refused = True
            say(f"{exc.code} {exc.reason}")
    if is_empty:
        raise FatalError(ExitCode.FAILED, "no line on standard input; nothing was verified")
    raise typer.Exit(ExitCode.FAILED if refused else ExitCode.OK)


def _stdin_lines() -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) of the lines that are not blank, without their line ends."""
    if sys.stdin is None:
        raise FatalError(ExitCode.FAILED, "standard input is closed; there is nothing to read")
    for number, line in enumerate(sys.stdin.buffer, start=1):
        text = line.rstrip(b"\r\n")
        if text.strip():
            yield number, text
