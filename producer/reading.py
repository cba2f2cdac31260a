"""The `results` command: read the results topic, verify each, show it."""

from typing import Final

import orjson
import typer
from aiokafka import AIOKafkaConsumer, TopicPartition

from producer.awaiting import outcome_of
from producer.checks import verified_result
from producer.connection import answering, existing_partitions, reader, to_record
from producer.presentation import outcome_line, printable
from producer.settings import ProducerSettings
from schemas import Record, Refused, Verifier
from schemas.exits import ExitCode, Halt

_POLL_MS: Final = 500


async def show_results(settings: ProducerSettings, *, follow: bool, as_json: bool) -> int:
    """Show the results from the beginning to the present end, or on; return how many are forged.

    Raises:
        Halt: no broker answers, or the topic does not exist.
    """
    verifier = Verifier(settings.keys, settings.results_topic)
    partitions = await existing_partitions(settings, (settings.results_topic,))
    unverifiable, silent_seconds = 0, 0.0
    async with reader(settings) as consumer:
        consumer.assign(partitions)
        async with answering(settings, "asking for the ends of the results"):
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
        while follow or not await _reached(consumer, ends):
            batches = await consumer.getmany(timeout_ms=_POLL_MS)
            for record in (record for records in batches.values() for record in records):
                unverifiable += not _show(to_record(record), verifier, as_json)
            # The client never says that a broker went away: it tries again for ever.
            silent_seconds = 0.0 if batches or follow else silent_seconds + _POLL_MS / 1000
            if silent_seconds > settings.broker_timeout_seconds:
                raise Halt(ExitCode.BROKER, "reading results: the brokers fell silent; try again")
    return unverifiable


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    positions = [(await consumer.position(partition), end) for partition, end in ends.items()]
    return all(position >= end for position, end in positions)


def _show(record: Record, verifier: Verifier, as_json: bool) -> bool:
    """Show one record, and tell whether it is authentic."""
    try:
        result = verified_result(record, verifier)
    except Refused as refused:
        place = f"{record.topic}[{record.partition}]@{record.offset}"
        error = {"code": refused.code, "message": refused.reason}
        line = {"status": "unverifiable", "place": place, "error": error}
        typer.echo(
            orjson.dumps(line).decode()
            if as_json
            else printable(f"{place}  UNVERIFIABLE  {refused}")
        )
        return False
    uri = result.image.uri if result.image else None
    typer.echo(outcome_line(outcome_of(result, record.value), uri, as_json))
    return True
