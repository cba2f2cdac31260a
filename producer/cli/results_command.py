"""The `results` command: the results topic as lines."""

import typer

from producer.cli.outcome_lines import outcome_line, place_of
from producer.outcomes import Outcome, outcome_of
from producer.results import ResultReader
from producer.settings import ProducerSettings
from schemas import Record, Refused


async def show_results(settings: ProducerSettings, *, follow: bool, as_json: bool) -> int:
    """Show the results from the beginning to the present end, or on; return how many are forged.

    Raises:
        FatalError: no broker answers, or the topic does not exist.
    """

    def show_unverifiable(record: Record, refused: Refused) -> None:
        outcome = Outcome(
            id=place_of(record), status="unverifiable", code=refused.code, message=refused.reason
        )
        typer.echo(outcome_line(outcome, None, as_json))

    opening = ResultReader(settings, follow=follow, on_unverifiable=show_unverifiable)
    async with opening as reader:
        async for one in reader:
            uri = one.result.image.uri if one.result.image else None
            typer.echo(outcome_line(outcome_of(one.result, one.value), uri, as_json))
    return reader.unverifiable_count
