"""The `publish` command."""

import asyncio
import io
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import say
from producer.cli.folders import FolderRules, LeftOut, formats_of
from producer.cli.progress import Tally
from producer.cli.publishing import PublishPlan, publish_all
from producer.cli.references import STDIN, BadReference, IdFrom, count_entries, entries
from producer.cli.settings import load_settings
from producer.errors import TooLarge
from producer.settings import ProducerSettings
from schemas import Task

_References = Annotated[
    list[str],
    typer.Argument(
        metavar="REFERENCES",
        help="PATH, DIR, GLOB, URI, a list (.jsonl, .ndjson, .txt) or - for standard input. A "
        "line of the last two is a URI, a path, or JSON: a whole request, or uri, tasks, key, "
        "metadata; `#` begins a comment, and a NUL ends a line too.",
        show_default=False,
    ),
]
_Receipts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append a line of JSON for each request to FILE."),
]
_Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Publish only what is not done by the receipts in FILE; append."
    ),
]
_IdFrom = Annotated[
    IdFrom,
    typer.Option(
        help="Ids: random, or made of the path, or of the picture's bytes; as UUIDs where a "
        "store demands them. The consumer takes an id once within its replay window."
    ),
]


def publish(
    context: typer.Context,
    references: _References,
    tasks: Annotated[str, typer.Option(help="What to do, by comma.")] = "embed,caption",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results; show each.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders within folders, too.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, help="With --wait: give up after so many seconds in which no result came."
        ),
    ] = 120.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each: the receipt, or the result.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="With --wait: ids too, last.")] = False,
    receipts: _Receipts = None,
    resume: _Resume = None,
    id_from: _IdFrom = IdFrom.RANDOM,
) -> None:
    """Publish images; with --wait show what becomes of each.

    One line per result: name, status, time, caption or reason. Ends with 1 if any request failed,
    was refused or timed out.

    \b
    Examples:
      imagelane publish pictures/ --wait
      imagelane publish 'a/**/*.png' https://example.org/b.jpg --tasks embed
      find pictures -name '*.jpg' -print0 | imagelane publish - --resume receipts.jsonl
    """
    settings = load_settings(context, ProducerSettings)
    plan = PublishPlan(
        tasks=_tasks(tasks),
        id_from=id_from,
        patience_seconds=timeout if wait else None,
        as_json=as_json,
        with_ids=ids,
        receipts=receipts,
        resume=resume,
    )
    formats = formats_of(context.obj.get("DECODE_FORMATS", ""))
    rules = FolderRules(recursive=recursive, formats=formats)
    tally = _publish(settings, references, rules, plan)
    raise typer.Exit(ExitCode.FAILED if tally.failed else ExitCode.OK)


def _publish(
    settings: ProducerSettings, references: list[str], rules: FolderRules, plan: PublishPlan
) -> Tally:
    """Publish the references; any fault in them ends in one line."""
    try:
        left_out = LeftOut()
        total = count_entries(references, rules, left_out)
        for line in left_out.lines():
            say(line, err=True)
        stdin = _own_stdin() if STDIN in references else io.BytesIO()
        if total == 0:
            raise BadReference(", ".join(references), "no image there; nothing to publish")
        found = entries(references, rules, stdin)
        tally = asyncio.run(publish_all(settings, found, plan, total))
    except (BadReference, TooLarge) as exc:
        raise FatalError(ExitCode.FAILED, str(exc)) from exc
    except OSError as exc:
        raise FatalError(
            ExitCode.FAILED, f"{exc.filename or 'input'}: {exc.strerror or exc}"
        ) from exc
    if tally.ended + tally.skipped == 0:
        raise FatalError(ExitCode.FAILED, "no reference on standard input; nothing to publish")
    return tally


def _tasks(names: str) -> tuple[Task, ...]:
    try:
        return tuple(Task(name.strip()) for name in names.split(","))
    except ValueError as exc:
        known = ", ".join(Task)
        raise typer.BadParameter(f"{exc}; tasks are {known}", param_hint="--tasks") from exc


def _own_stdin() -> BinaryIO:
    """Return a new reader of standard input.

    At exit a thread may be blocked in it. The interpreter closes `sys.stdin` then, and would abort
    if the thread read that one.
    """
    return open(0, "rb", closefd=False)
