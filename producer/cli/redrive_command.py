"""The `redrive` command: dead letters go back to the ingest topic with a new signature."""

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Annotated

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from imagelane.exits import ExitCode
from imagelane.terminal import say
from producer.cli.options import ReplayWindow
from producer.cli.outcome_lines import place_of
from producer.cli.settings import load_settings
from producer.cli.times import unix_seconds
from producer.connection import existing_partitions, reader, writer
from producer.dead_letters import NotRedriven, Renewal, Selection, place_of_original, text_of
from producer.errors import TooLarge
from producer.publisher import sending
from producer.records import batches_of, record_at
from producer.results import CLOCK_SKEW_SECONDS, ResultReader
from producer.settings import ProducerSettings
from schemas import Code, Record, Signer, Verifier
from schemas.headers import DLQ_CODE, SIG_ID, SIG_TS


def redrive(
    context: typer.Context,
    code: Annotated[
        list[str] | None, typer.Option(help="Of these codes, by comma or repeated.")
    ] = None,
    since: Annotated[
        float | None,
        typer.Option(parser=unix_seconds, metavar="TIME", help="Dead since: UNIX or ISO (UTC)."),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(parser=unix_seconds, metavar="TIME", help="Dead before: UNIX or ISO (UTC)."),
    ] = None,
    id: Annotated[list[str] | None, typer.Option(help="Of these ids; repeat it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    replay_window: ReplayWindow = 600,
) -> None:
    """Sign dead letters again and publish them once more.

    For records that were refused as `stale`, or failed and may succeed now. The original is read
    from the ingest topic, and signed with the current key. Not redriven: an original that is gone,
    not authentic, or older than REDRIVE_MAX_AGE_SECONDS; an id with an outcome; a record that was
    admitted within the replay window, for the consumer would drop it as a repeat. One line each;
    ends with 1 if any was not redriven. Dead letters stay in their topic.

    \b
    Examples:
      imagelane redrive --code stale --since 2026-05-01T08:00 --dry-run
      imagelane redrive --code not_found,image_unavailable --until 1777622400
      imagelane redrive --id 01JABC --id 01JABD
    """
    settings = load_settings(context, ProducerSettings)
    selection = Selection(
        codes=_codes(code or []),
        ids=frozenset(id or []),
        since=-math.inf if since is None else since,
        until=math.inf if until is None else until,
    )
    if every == (selection != Selection()):  # both or neither
        raise typer.BadParameter("give --code, --since, --until or --id; or --all alone")
    work = redrive_dead_letters(
        settings, selection, dry_run=dry_run, replay_window_seconds=replay_window
    )
    raise typer.Exit(ExitCode.FAILED if asyncio.run(work) else ExitCode.OK)


@dataclass(slots=True, kw_only=True)
class Redrive:
    """One pass over the dead letters; without a `producer` a dry run."""

    settings: ProducerSettings
    renewal: Renewal
    producer: AIOKafkaProducer | None
    originals: AIOKafkaConsumer
    outcomes: Mapping[str, frozenset[str]]
    selected: int = 0
    redriven: int = 0
    _ids: set[str] = field(default_factory=set)

    async def take(self, dead_letter: Record) -> None:
        """Redrive one dead letter, or show why not."""
        self.selected += 1
        id, code = text_of(dead_letter, SIG_ID), text_of(dead_letter, DLQ_CODE)
        try:
            original = await self._original(dead_letter)
            outcomes = self.outcomes.get(id, frozenset())
            id, record = self.renewal.renew(dead_letter, original, outcomes, time.time())
            if id in self._ids:
                raise NotRedriven("another dead letter of this id was before it")
            self._ids.add(id)
            if self.producer:
                async with sending(self.settings, id):
                    await self.producer.send_and_wait(
                        record.topic, record.value, key=record.key, headers=list(record.headers)
                    )
        except (NotRedriven, TooLarge) as exc:
            said = f"not redriven: {exc}"
        else:
            self.redriven += 1
            said = "redriven" if self.producer else "would be redriven"
        say(f"{place_of(dead_letter)}  {id or '-'}  {code or '-'}  {said}")

    async def _original(self, dead_letter: Record) -> Record | None:
        place = place_of_original(dead_letter, self.settings.ingest_topic)
        partition = TopicPartition(self.settings.ingest_topic, place.partition)
        if partition not in self.originals.assignment():
            return None
        return await record_at(self.settings, self.originals, partition, place.offset)


async def redrive_dead_letters(
    settings: ProducerSettings,
    selection: Selection,
    *,
    dry_run: bool,
    replay_window_seconds: int,
) -> int:
    """Redrive the selected dead letters up to the present end; return how many were not."""
    topic = settings.ingest_topic
    partitions = await existing_partitions(settings, (topic,))
    await existing_partitions(settings, (settings.dlq_topic, settings.results_topic))
    renewal = Renewal(
        verifier=Verifier(settings.keys, topic),
        signer=Signer(settings.keys, topic),
        ingest_topic=topic,
        replay_window_seconds=replay_window_seconds,
        max_age_seconds=settings.redrive_max_age_seconds,
    )
    outcomes = await _outcomes(settings, selection)
    opened = nullcontext() if dry_run else writer(settings)
    async with (
        opened as producer,
        reader(settings) as originals,
        aclosing(batches_of(settings, settings.dlq_topic)) as batches,
    ):
        originals.assign(partitions)
        run = Redrive(
            settings=settings,
            renewal=renewal,
            producer=producer,
            originals=originals,
            outcomes=outcomes,
        )
        async for dead_letters in batches:
            for dead_letter in filter(selection.takes, dead_letters):
                await run.take(dead_letter)
    failed_count = run.selected - run.redriven
    done = "would be redriven" if dry_run else "redriven"
    say(f"selected {run.selected}, {done} {run.redriven}, not {failed_count}", err=True)
    return failed_count


async def _outcomes(
    settings: ProducerSettings, selection: Selection
) -> Mapping[str, frozenset[str]]:
    """Return the statuses of the results by selected id."""
    found: dict[str, frozenset[str]] = {}
    oldest = math.inf
    async with aclosing(batches_of(settings, settings.dlq_topic)) as batches:
        async for dead_letters in batches:
            for dead_letter in filter(selection.takes, dead_letters):
                found[text_of(dead_letter, SIG_ID)] = frozenset()
                with suppress(ValueError):
                    oldest = min(oldest, int(text_of(dead_letter, SIG_TS)))
    if found:
        # Clocks differ: a result may seem older than its request.
        since = oldest - CLOCK_SKEW_SECONDS if math.isfinite(oldest) else None
        async with ResultReader(settings, follow=False, since=since) as results:
            async for one in results:
                if one.id in found:
                    found[one.id] |= {one.result.status}
    return found


def _codes(given: list[str]) -> frozenset[Code]:
    try:
        return frozenset(
            Code(name.strip())  # type: ignore[call-arg]  # it looks one up
            for names in given
            for name in names.split(",")
        )
    except ValueError as exc:
        known = ", ".join(Code)
        raise typer.BadParameter(f"{exc}; codes are {known}", param_hint="--code") from exc
