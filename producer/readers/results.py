"""Topics from their beginning: for the `results` command, and for who reads another."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import typer

from imagelane.exits import ExitCode, FatalError
from producer.cli.outcome_lines import outcome_line, place_of
from producer.connection import answering, existing_partitions, poll, reader
from producer.outcomes import Outcome, outcome_of
from producer.readers.verify import verified_result
from producer.settings import ProducerSettings
from schemas import Record, Refused, Verifier

_POLL_MS: Final = 500


async def show_results(settings: ProducerSettings, *, follow: bool, as_json: bool) -> int:
    """Show the results from the beginning to the present end, or on; return how many are forged.

    Raises:
        FatalError: no broker answers, or the topic does not exist.
    """
    topic, unverifiable = settings.results_topic, 0
    verifier = Verifier(settings.keys, topic)
    async with aclosing(batches_of(settings, topic, follow=follow)) as batches:
        async for records in batches:
            for record in records:
                outcome, uri = _told(record, verifier)
                unverifiable += outcome.status == "unverifiable"
                typer.echo(outcome_line(outcome, uri, as_json))
    return unverifiable


async def batches_of(
    settings: ProducerSettings, topic: str, *, follow: bool = False
) -> AsyncGenerator[list[Record], None]:
    """Yield the committed records from the beginning to the present end, or on without an end.

    Raises:
        FatalError: no broker answers, or the topic does not exist.
    """
    partitions = await existing_partitions(settings, (topic,))
    silent_seconds = 0.0
    async with reader(settings) as consumer:
        consumer.assign(partitions)
        async with answering(settings, f"asking for the ends of {topic}"):
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
        while follow or any([await consumer.position(p) < end for p, end in ends.items()]):
            records = await poll(consumer, _POLL_MS)
            yield records
            # The client never says that a broker went away: it tries again for ever.
            silent_seconds = 0.0 if records or follow else silent_seconds + _POLL_MS / 1000
            if silent_seconds > settings.broker_timeout_seconds:
                raise FatalError(
                    ExitCode.BROKER, f"reading {topic}: the brokers fell silent; try again"
                )


def _told(record: Record, verifier: Verifier) -> tuple[Outcome, str | None]:
    """Return the outcome that a record tells of, and the image's URI where it says that."""
    try:
        result = verified_result(record, verifier)
    except Refused as no:
        place = place_of(record)
        return Outcome(id=place, status="unverifiable", code=no.code, message=no.reason), None
    return outcome_of(result, record.value), result.image.uri if result.image else None
