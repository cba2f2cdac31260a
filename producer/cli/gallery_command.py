"""The `gallery` command: a page of the results, and a search."""

import asyncio
import time
from contextlib import suppress
from typing import Annotated

import typer

from imagelane.terminal import say
from producer.cli.settings import load_settings
from producer.gallery.run import running_gallery
from producer.gallery.settings import GallerySettings


def gallery(
    context: typer.Context,
    since: Annotated[
        float | None,
        typer.Option(min=0, help="Only results of the last so many hours.", metavar="HOURS"),
    ] = None,
) -> None:
    """Show the results on a page, and find pictures by words.

    New results appear at once. The page shows pictures of `file:` below FILE_ROOTS. Ctrl-C ends it.

    \b
    Example:
      FILE_ROOTS=/pictures imagelane gallery
    """
    settings = load_settings(context, GallerySettings)
    with suppress(KeyboardInterrupt):  # the only way to end it
        asyncio.run(_serve(settings, None if since is None else time.time() - since * 3600))
    say("the gallery has ended")


async def _serve(settings: GallerySettings, since: float | None) -> None:
    async with running_gallery(settings, since=since) as gallery:
        say(f"the gallery is at {gallery.address}")
        await gallery.reading
