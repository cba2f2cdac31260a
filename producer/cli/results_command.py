"""The `results` command: the results topic as lines, or into a file."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import say
from producer.cli.outcome_lines import outcome_line, place_of
from producer.cli.settings import load_settings, say_unverifiable
from producer.cli.times import unix_seconds
from producer.export import Spool, write_npz, write_parquet
from producer.outcomes import Outcome, outcome_of
from producer.result_lines import write_lines
from producer.results import ResultReader, Status
from producer.settings import ProducerSettings
from schemas import Record, Refused

_BOTH: Final[tuple[Status, ...]] = ("ok", "error")


class StatusOption(StrEnum):
    OK = "ok"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    follow: bool
    since: float | None
    statuses: Collection[Status]
    as_json: bool
    with_id: bool


def results(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; end with Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The JSON of each result, as received, one a line.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Ids too, last.")] = False,
    since: Annotated[
        float | None,
        typer.Option(parser=unix_seconds, metavar="TIME", help="Signed since: UNIX or ISO (UTC)."),
    ] = None,
    status: Annotated[StatusOption | None, typer.Option(help="Only these.")] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write to FILE.jsonl (a later run goes on where it stopped, by FILE.jsonl.place), "
            "FILE.parquet or FILE.npz (the extra `export`; whole or not there).",
        ),
    ] = None,
) -> None:
    """Show the results, each verified, or write them to a file.

    A result that is not authentic is marked, and the command ends with 1. Of two results of an id
    the later signature counts.

    \b
    Examples:
      imagelane results --follow
      imagelane results --to results.jsonl --follow
      imagelane results --to pictures.npz --status ok --since 2026-11-01
    """
    settings = load_settings(context, ProducerSettings)
    wanted = _Wanted(
        follow=follow,
        since=since,
        statuses=_BOTH if status is None else (status.value,),
        as_json=as_json,
        with_id=ids,
    )
    work = _show(settings, wanted) if to is None else _write(settings, wanted, to)
    raise typer.Exit(ExitCode.FAILED if asyncio.run(work) else ExitCode.OK)


async def _show(settings: ProducerSettings, wanted: _Wanted) -> int:
    """Show the results, and return how many do not verify."""

    def show(outcome: Outcome, uri: str | None) -> None:
        line = outcome_line(outcome, uri, as_json=wanted.as_json, with_id=wanted.with_id)
        say(line, fit=not wanted.as_json)

    def show_unverifiable(record: Record, refused: Refused) -> None:
        outcome = Outcome(
            id=place_of(record), status="unverifiable", code=refused.code, message=refused.reason
        )
        show(outcome, None)

    opening = ResultReader(
        settings,
        follow=wanted.follow,
        since=wanted.since,
        statuses=wanted.statuses,
        on_unverifiable=show_unverifiable,
    )
    async with opening as reader:
        async for one in reader:
            uri = one.result.image.uri if one.result.image else None
            show(outcome_of(one.result, one.value), uri)
    say_unverifiable(settings, reader.unverifiable_count)
    return reader.unverifiable_count


async def _write(settings: ProducerSettings, wanted: _Wanted, path: Path) -> int:
    """Write the results to a file, and return how many do not verify."""
    if path.suffix == ".jsonl":
        count, unverifiable = await write_lines(
            settings,
            path,
            follow=wanted.follow,
            since=wanted.since,
            statuses=wanted.statuses,
        )
        say(f"{count} results more in {path}", err=True)
        say_unverifiable(settings, unverifiable)
        return unverifiable
    if path.suffix not in (".parquet", ".npz"):
        raise typer.BadParameter("FILE ends in .jsonl, .parquet or .npz", param_hint="--to")
    if wanted.follow:
        raise typer.BadParameter(f"{path.suffix} has an end; use .jsonl", param_hint="--follow")
    try:
        return await _write_whole(settings, wanted, path)
    except ModuleNotFoundError as exc:
        message = f"{path.suffix} needs the package {exc.name}; pip install 'imagelane[export]'"
        raise FatalError(ExitCode.FAILED, message) from exc
    except OSError as exc:
        raise FatalError(ExitCode.FAILED, f"{path}: {exc.strerror or exc}") from exc


async def _write_whole(settings: ProducerSettings, wanted: _Wanted, path: Path) -> int:
    with Spool(path.parent) as spool:
        async with ResultReader(settings, follow=False, since=wanted.since) as reader:
            await spool.fill(reader)
        rows, others = spool.rows(wanted.statuses), 0
        if path.suffix == ".parquet":
            count = await asyncio.to_thread(write_parquet, path, rows)
        else:
            count, others = await asyncio.to_thread(write_npz, path, rows)
    left_out = f"; {others} of other models left out, vectors of two cannot be compared"
    line = f"{count} results in {path}{left_out if others else ''}"
    say(line, err=True)
    say_unverifiable(settings, reader.unverifiable_count)
    return reader.unverifiable_count
