"""The `index` command: results into PostgreSQL with pgvector."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

import typer

from imagelane.exits import ExitCode
from imagelane.terminal import say
from producer.cli.progress import display
from producer.cli.settings import load_settings, say_unverifiable
from producer.cli.tables import TABLE, table_named
from producer.cli.times import unix_seconds
from producer.database.index import DatabaseIndex
from producer.database.schema import Tables
from producer.database.settings import DatabaseSettings
from producer.results import ResultReader


@dataclass(slots=True, kw_only=True)
class IndexTally:
    """How many results were written, and how many records are still unread."""

    written: int = 0
    behind: int = 0

    def line(self, elapsed_seconds: float) -> str:
        """Return the tally in one line."""
        rate = self.written / elapsed_seconds if elapsed_seconds > 0 else 0.0
        return (
            f"indexed {self.written}, {self.behind} records behind, {rate:.1f}/s in "
            f"{elapsed_seconds:.1f} s"
        )

    def bar(self, elapsed_seconds: float, total: int | None) -> str:
        """Return the same line: a follower has no total."""
        return self.line(elapsed_seconds)


def index(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; end with Ctrl-C.")
    ] = False,
    since: Annotated[
        float | None,
        typer.Option(
            parser=unix_seconds,
            metavar="TIME",
            help="Signed since: UNIX or ISO (UTC). What is older is passed over for good.",
        ),
    ] = None,
    table: Annotated[
        str,
        typer.Option(metavar="NAME", help="The table of rows; NAME_places has the place."),
    ] = TABLE,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL that creates the tables, and end.")
    ] = False,
) -> None:
    """Write the results, each verified, into PostgreSQL with pgvector.

    DATABASE_URL, or the file of DATABASE_URL_FILE, has the address. A later run continues: each
    transaction writes rows and position, so a kill loses and doubles nothing. One row per id; of
    two results the later signature counts.

    \b
    Examples:
      DATABASE_URL_FILE=database_url imagelane index --follow
      imagelane search "two green stars" --database
    """
    tables = Tables(table_named(table))
    if sql:
        for line in tables.script().splitlines():
            say(line)
        raise typer.Exit
    settings = load_settings(context, DatabaseSettings)
    unverifiable = asyncio.run(_index(settings, tables, follow=follow, since=since))
    raise typer.Exit(ExitCode.FAILED if unverifiable else ExitCode.OK)


async def _index(
    settings: DatabaseSettings, tables: Tables, *, follow: bool, since: float | None
) -> int:
    """Write to the end of the topic, or for ever; return how many records do not verify."""
    tally = IndexTally()
    async with DatabaseIndex(settings, tables) as database:
        opening = ResultReader(settings, follow=follow, since=since, start=database.positions)
        async with opening as reader:
            if reader.deleted_unread_count:
                count = reader.deleted_unread_count
                say(f"{count} records were deleted from the topic before they were read", err=True)
            async with display(tally, total=None):
                async for results in reader.batches():
                    pictures = [one for one in results if one.is_of_image]
                    await database.write(pictures, {**database.positions, **reader.positions})
                    tally.written += len(pictures)
                    tally.behind = reader.behind_count
    say_unverifiable(settings, reader.unverifiable_count)
    return reader.unverifiable_count
