"""The `redrive` command: dead letters, signed again, go back to the ingest topic."""

import asyncio
import math
import time
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import typer
from aiokafka import AIOKafkaProducer

from imagelane.exits import ExitCode
from imagelane.terminal import say
from producer.cli.given import settings_given
from producer.cli.outcome_lines import place_of
from producer.connection import existing_partitions, writer
from producer.dead_letters import NotRedriven, Renewal, Selection, text_of
from producer.errors import TooLarge
from producer.publisher import sending
from producer.records import batches_of
from producer.settings import ProducerSettings
from schemas import Code, Record, Signer, Verifier
from schemas.headers import DLQ_CODE, SIG_ID


def unix_seconds(text: str) -> float:
    """Return the Unix seconds of a number or an ISO 8601 time; one without an offset is UTC.

    Raises:
        BadParameter: it is neither.
    """
    try:
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        given = datetime.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} is no time: {exc}") from exc
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


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
    replay_window: Annotated[
        int,
        typer.Option(
            "--replay-window-seconds",
            min=0,
            help="How long the consumer remembers an id: twice its APPEND_WINDOW_SECONDS (twice "
            "its CREATE_WINDOW_SECONDS where the ingest topic is of CreateTime).",
        ),
    ] = 600,
) -> None:
    """Sign dead letters again and publish them once more.

    With the current key, to the ingest topic. For what was refused as `stale`, or failed and can go
    well now. Never signed again: what is not authentic. Impossible: what was truncated. Held back:
    what was admitted within the replay window, for it would be dropped as a repeat. One line each;
    ends with 1 if any was not redriven.

    Dead letters stay in their topic: select by time, or a second run publishes them once more.
    A stale one can be the late copy of a record that was done: redriven, it is done again.

    \b
    Examples:
      imagelane redrive --code stale --since 2026-05-01T08:00 --dry-run
      imagelane redrive --code not_found,image_unavailable --until 1777622400
      imagelane redrive --id 01JABC --id 01JABD
    """
    settings = settings_given(context, ProducerSettings)
    selection = Selection(
        codes=_codes(code or []),
        ids=frozenset(id or []),
        since=-math.inf if since is None else since,
        until=math.inf if until is None else until,
    )
    if every == (selection != Selection()):
        raise typer.BadParameter("give --code, --since, --until or --id; or --all alone")
    work = redrive_letters(
        settings, selection, dry_run=dry_run, replay_window_seconds=replay_window
    )
    raise typer.Exit(ExitCode.FAILED if asyncio.run(work) else ExitCode.OK)


@dataclass(slots=True, kw_only=True)
class Redrive:
    """One pass over the dead letters; without a `producer` it only says what it would do."""

    settings: ProducerSettings
    renewal: Renewal
    producer: AIOKafkaProducer | None
    selected: int = 0
    redriven: int = 0
    _ids: set[str] = field(default_factory=set)

    async def take(self, letter: Record) -> None:
        """Redrive one dead letter, or say why not."""
        self.selected += 1
        try:
            id, record = self.renewal.renew(letter, time.time())
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
        id, code = text_of(letter, SIG_ID) or "-", text_of(letter, DLQ_CODE) or "-"
        say(f"{place_of(letter)}  {id}  {code}  {said}")


async def redrive_letters(
    settings: ProducerSettings,
    selection: Selection,
    *,
    dry_run: bool,
    replay_window_seconds: int,
) -> int:
    """Redrive what is selected of the present dead letters; return how many could not be.

    Raises:
        FatalError: no broker answers, or a topic does not exist.
    """
    topic = settings.ingest_topic
    await existing_partitions(settings, (topic, settings.dlq_topic))
    renewal = Renewal(
        verifier=Verifier(settings.keys, topic),
        signer=Signer(settings.keys, topic),
        ingest_topic=topic,
        replay_window_seconds=replay_window_seconds,
    )
    opened = nullcontext() if dry_run else writer(settings)
    async with opened as producer, aclosing(batches_of(settings, settings.dlq_topic)) as batches:
        run = Redrive(settings=settings, renewal=renewal, producer=producer)
        async for letters in batches:
            try:
                async with asyncio.TaskGroup() as group:
                    for letter in filter(selection.takes, letters):
                        group.create_task(run.take(letter))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None  # the first fault is the cause of the others
    failed_count = run.selected - run.redriven
    done = "would be redriven" if dry_run else "redriven"
    say(f"selected {run.selected}, {done} {run.redriven}, not {failed_count}", err=True)
    return failed_count


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
