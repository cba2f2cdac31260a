"""The `reembed` command: new requests for images with another model's embedding."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import printable, say
from producer.cli.options import ReplayWindow
from producer.cli.outcome_lines import name_of
from producer.cli.progress import Tally, display
from producer.cli.settings import load_settings
from producer.cli.tables import TABLE, table_named
from producer.export import Spool
from producer.outdated import ModelName, Outdated, outdated_in
from producer.publisher import Publisher
from producer.requests import Keyed
from producer.results import ResultReader
from producer.settings import ProducerSettings


def reembed(
    context: typer.Context,
    model_not: Annotated[
        str,
        typer.Option(
            "--model-not",
            metavar="MODEL[@REVISION]",
            help="The model that is wanted, as results name it: all of others go again.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
    database: Annotated[
        bool,
        typer.Option("--database", help="By what `imagelane index` wrote, not the results topic."),
    ] = False,
    table: Annotated[str, typer.Option(metavar="NAME", help="Its table.")] = TABLE,
    replay_window: ReplayWindow = 600,
) -> None:
    """Publish anew what another model embedded.

    With the same image, tasks, metadata, key and id: the new result, even an `error`, is signed
    later, so it replaces the old one in every store by id. A result from within the replay window
    is left for later, for the consumer would drop its request as a repeat. One line each.

    \b
    Examples:
      imagelane reembed --model-not google/siglip2-base-patch16-224 --dry-run
      imagelane reembed --model-not google/siglip2-base-patch16-224 --database --limit 1000
    """
    wanted = ModelName.parse(model_not)
    if database:
        found, settings = _by_database(context, table_named(table), wanted)
    else:
        settings = load_settings(context, ProducerSettings)
        found = _by_topic(settings, wanted)
    run = _Reembed(
        settings=settings,
        limit=limit,
        made_before=time.time() - replay_window,
    )
    asyncio.run(run.show(found) if dry_run else run.publish(found))


def _by_database(
    context: typer.Context, table: str, wanted: ModelName
) -> tuple[AsyncGenerator[Outdated, None], ProducerSettings]:
    try:
        from producer.database.outdated import outdated_in_database
        from producer.database.schema import Tables
        from producer.database.settings import DatabaseSettings
    except ModuleNotFoundError as exc:
        message = f"`--database` needs the package {exc.name}; pip install 'imagelane[index]'"
        raise FatalError(ExitCode.FAILED, message) from exc
    settings = load_settings(context, DatabaseSettings)
    return outdated_in_database(settings, Tables(table), wanted), settings


async def _by_topic(
    settings: ProducerSettings, wanted: ModelName
) -> AsyncGenerator[Outdated, None]:
    """Yield the outdated images of the topic, once all of it is read: a later result may be new."""
    with Spool(Path(tempfile.gettempdir())) as spool:
        async with ResultReader(settings, follow=False) as reader:
            await spool.fill(reader)
        for older in outdated_in(spool, wanted):
            yield older


@dataclass(slots=True, kw_only=True)
class _Reembed:
    settings: ProducerSettings
    limit: int | None
    made_before: float
    recent: int = 0
    models: Counter[str] = field(default_factory=Counter)
    under_way: dict[str, Outdated] = field(default_factory=dict)

    async def show(self, found: AsyncGenerator[Outdated, None]) -> None:
        """Show the requests without publishing them."""
        async with aclosing(found), aclosing(self._selected(found)) as selected:
            async for older in selected:
                self._say(older, "would be published")
        self._sum_up("would be published")

    async def publish(self, found: AsyncGenerator[Outdated, None]) -> None:
        """Publish the requests."""
        tally = Tally()
        async with (
            aclosing(found),
            aclosing(self._requests(found)) as requests,
            Publisher(self.settings) as publisher,
            display(tally, total=None),
        ):
            async for published in publisher.publish_many(requests):
                tally.published += 1
                tally.done += 1
                self._say(self.under_way.pop(published.id), "published")
        self._sum_up("published")

    async def _requests(self, found: AsyncIterator[Outdated]) -> AsyncGenerator[Keyed, None]:
        async with aclosing(self._selected(found)) as selected:
            async for older in selected:
                self.under_way[older.id] = older
                yield older.request()

    async def _selected(self, found: AsyncIterator[Outdated]) -> AsyncGenerator[Outdated, None]:
        count = 0
        async for older in found:
            if count == self.limit:
                return
            if older.signed_at >= self.made_before:
                self.recent += 1
                continue
            count += 1
            yield older

    def _say(self, older: Outdated, said: str) -> None:
        model = f"{older.model} at {older.revision}"
        self.models[model] += 1
        say(f"{older.id}  {printable(name_of(older.uri))}  {printable(model)}  {said}")

    def _sum_up(self, said: str) -> None:
        for model, count in self.models.most_common():
            say(f"{said}: {count} of {model}", err=True)
        if self.recent:
            say(f"left for later: {self.recent} made within the replay window", err=True)
        if not self.models and not self.recent:
            say("nothing: there is no embedding of another model", err=True)
