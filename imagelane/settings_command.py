"""The `settings` command: the settings in force, and the origin of each value."""

from importlib import import_module
from typing import Annotated, Final

import typer

from imagelane.settings import WireSettings
from imagelane.settings_table import settings_in_force, settings_table
from imagelane.terminal import say

_SIDES: Final = {
    "consumer": "consumer.settings:ConsumerSettings",
    "producer": "producer.settings:ProducerSettings",
    "gallery": "producer.gallery.settings:GallerySettings",
}


def settings(
    context: typer.Context,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="All settings as the README's table.")
    ] = False,
) -> None:
    """Show the settings in force, and where each came from.

    Secrets are masked; two sides with the same secret have the same fingerprint.

    \b
    Example:
      imagelane settings
    """
    shared: frozenset[str] = frozenset()
    for side, type_ in _sides().items():
        say(f"# {side}")
        if markdown:
            for line in settings_table(type_, without=shared).splitlines():
                say(line)
        else:
            for line in settings_in_force(type_.from_env(context.obj), context.obj):
                if line.partition("=")[0].lower() not in shared:
                    say(line)
        shared = frozenset(type_.model_fields if side == "producer" else WireSettings.model_fields)


def _sides() -> dict[str, type[WireSettings]]:
    """Return the settings of the sides that are installed."""
    sides = {}
    for side, target in _SIDES.items():
        module, _, name = target.partition(":")
        try:
            sides[side] = getattr(import_module(module), name)
        except ModuleNotFoundError:
            continue
    return sides
