"""The settings of a command, and the line for results that they cannot verify."""

from typing import TypeVar

import typer

from imagelane.settings import WireSettings
from imagelane.terminal import say

_Settings = TypeVar("_Settings", bound=WireSettings)


def say_unverifiable(settings: WireSettings, count: int) -> None:
    """Say on stderr how many results did not verify, if any, and the likely cause."""
    if count:
        ours = settings.fingerprints[settings.secret_api_key_id]
        say(
            f"{count} results ignored: their signature does not hold. Is the secret that of the "
            f"consumers? Ours has the fingerprint {ours}, theirs is in their log and in `check`",
            err=True,
        )


def load_settings(context: typer.Context, type_: type[_Settings]) -> _Settings:
    """Return the settings from the environment, and name misspelt variables on stderr."""
    settings = type_.from_env(context.obj)
    for line in type_.misspelt(context.obj):
        say(line, err=True)
    return settings
