"""The `search` command: the pictures of a file or of the database that fit some words."""

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import json_line, printable, say
from producer.cli.outcome_lines import name_of
from producer.cli.settings import load_settings
from producer.cli.tables import TABLE, table_named
from producer.errors import InvalidRequest, ResultTimeout
from producer.nearest import Match
from producer.publisher import Publisher
from producer.settings import ProducerSettings
from schemas import Embedding


def search(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(help="What to look for, quoted or not.", show_default=False)
    ],
    file: Annotated[
        Path | None,
        typer.Option("--in", metavar="FILE.npz", help="What `imagelane results --to` wrote."),
    ] = None,
    database: Annotated[
        bool, typer.Option("--database", help="What `imagelane index` wrote, at DATABASE_URL.")
    ] = False,
    table: Annotated[str, typer.Option(metavar="NAME", help="Its table.")] = TABLE,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 10,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the vector.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """Find the pictures that are nearest to some words.

    The consumer embeds the words with the model of the pictures' vectors. One line per picture, the
    nearest first: score, name, caption.

    \b
    Examples:
      imagelane search "two green stars" --in pictures.npz
      imagelane search "two green stars" --database
    """
    if database == (file is not None):
        raise typer.BadParameter("give either --in FILE.npz or --database")
    query = " ".join(words)
    try:
        if file is None:
            found = _of_database(context, query, table, count, timeout)
        else:
            found = _of_file(context, query, file, count, timeout)
    except ModuleNotFoundError as exc:
        extra = "index" if database else "export"
        message = f"`search` needs the package {exc.name}; pip install 'imagelane[{extra}]'"
        raise FatalError(ExitCode.FAILED, message) from exc
    for near in found:
        say(_line(near, as_json), fit=not as_json)
    if not found:
        say(f"no pictures in {file or table}", err=True)


def _of_file(
    context: typer.Context, words: str, file: Path, count: int, timeout: float
) -> list[Match]:
    from producer.nearest import nearest

    settings = load_settings(context, ProducerSettings)
    if not file.is_file():
        raise FatalError(ExitCode.FAILED, f"{file}: no such file; `imagelane results --to {file}`")
    return nearest(file, asyncio.run(_embed(settings, words, timeout)), count)


def _of_database(
    context: typer.Context, words: str, table: str, count: int, timeout: float
) -> list[Match]:
    from producer.database.nearest import nearest_in_database
    from producer.database.schema import Tables
    from producer.database.settings import DatabaseSettings

    settings = load_settings(context, DatabaseSettings)

    async def find() -> list[Match]:
        embedding = await _embed(settings, words, timeout)
        return await nearest_in_database(settings, Tables(table_named(table)), embedding, count)

    return asyncio.run(find())


async def _embed(settings: ProducerSettings, words: str, timeout_seconds: float) -> Embedding:
    async with Publisher(settings, results=True) as publisher:
        try:
            outcome = await publisher.process(text=words, timeout_seconds=timeout_seconds)
        except (InvalidRequest, ResultTimeout) as exc:
            raise FatalError(ExitCode.FAILED, str(exc)) from exc
    if outcome.result is None or outcome.result.embedding is None:
        raise FatalError(ExitCode.FAILED, f"{outcome.status}: {outcome.code}: {outcome.message}")
    return outcome.result.embedding


def _line(near: Match, as_json: bool) -> str:
    if as_json:
        return json_line(orjson.dumps(near._asdict()).decode())
    return f"{near.score:.3f}  {printable(name_of(near.uri)):<28}  {near.caption}".rstrip()
