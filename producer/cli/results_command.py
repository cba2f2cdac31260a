"""The `results` command: the results topic as lines."""

import asyncio
from typing import Annotated

import typer

from imagelane.exits import ExitCode
from imagelane.terminal import say
from producer.cli.given import settings_given
from producer.cli.outcome_lines import outcome_line, place_of
from producer.outcomes import Outcome, outcome_of
from producer.results import ResultReader
from producer.settings import ProducerSettings
from schemas import Record, Refused


def results(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; end with Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The JSON of each result, as received, one a line.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Ids too, last.")] = False,
) -> None:
    """Show the results, each verified, or write them to a file.

    One that is not authentic is marked, and the command ends with 1.

    \b
    Example:
      imagelane results --follow
    """
    settings = settings_given(context, ProducerSettings)
    work = _show(settings, follow=follow, as_json=as_json, with_id=ids)
    raise typer.Exit(ExitCode.FAILED if asyncio.run(work) else ExitCode.OK)


async def _show(settings: ProducerSettings, *, follow: bool, as_json: bool, with_id: bool) -> int:
    """Show the results, and return how many are forged."""

    def show(outcome: Outcome, uri: str | None) -> None:
        line = outcome_line(outcome, uri, as_json=as_json, with_id=with_id)
        say(line, fit=not as_json)

    def show_unverifiable(record: Record, refused: Refused) -> None:
        place = place_of(record)
        outcome = Outcome(
            id=place, status="unverifiable", code=refused.code, message=refused.reason
        )
        show(outcome, None)

    opening = ResultReader(settings, follow=follow, on_unverifiable=show_unverifiable)
    async with opening as reader:
        async for one in reader:
            uri = one.result.image.uri if one.result.image else None
            show(outcome_of(one.result, one.value), uri)
    return reader.unverifiable_count
