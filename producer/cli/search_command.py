"""The `search` command: pictures of a file, found by words."""

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import json_line, printable, say
from producer.cli.given import settings_given
from producer.cli.outcome_lines import name_of
from producer.errors import InvalidRequest, ResultTimeout
from producer.nearest import Near, nearest
from producer.publisher import Publisher
from producer.settings import ProducerSettings
from schemas import Embedding


def search(
    context: typer.Context,
    words: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    file: Annotated[
        Path,
        typer.Option("--in", metavar="FILE.npz", help="What `imagelane results --to` wrote."),
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 10,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the vector.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """Find the pictures of a file that are nearest to some words.

    The consumer makes a vector of the words, of the same model as the pictures' vectors. One line a
    picture, the nearest first: score, name, caption.

    \b
    Example:
      imagelane results --to pictures.npz
      imagelane search "two green stars" --in pictures.npz
    """
    settings = settings_given(context, ProducerSettings)
    if not file.is_file():
        raise FatalError(ExitCode.FAILED, f"{file}: no such file; `imagelane results --to {file}`")
    embedding = asyncio.run(_embed(settings, words, timeout))
    try:
        found = nearest(file, embedding, count)
    except ModuleNotFoundError as exc:
        message = f"`search` needs the package {exc.name}; pip install 'imagelane[export]'"
        raise FatalError(ExitCode.FAILED, message) from exc
    for near in found:
        say(_line(near, as_json), fit=not as_json)
    if not found:
        say(f"no pictures in {file}", err=True)


async def _embed(settings: ProducerSettings, words: str, timeout_seconds: float) -> Embedding:
    async with Publisher(settings, results=True) as publisher:
        try:
            outcome = await publisher.process(text=words, timeout_seconds=timeout_seconds)
        except (InvalidRequest, ResultTimeout) as exc:
            raise FatalError(ExitCode.FAILED, str(exc)) from exc
    if outcome.result is None or outcome.result.embedding is None:
        raise FatalError(ExitCode.FAILED, f"{outcome.status}: {outcome.code}: {outcome.message}")
    return outcome.result.embedding


def _line(near: Near, as_json: bool) -> str:
    if as_json:
        return json_line(orjson.dumps(near._asdict()).decode())
    return f"{near.score:.3f}  {printable(name_of(near.uri)):<28}  {near.caption}".rstrip()
