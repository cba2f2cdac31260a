"""The settings of a command."""

from typing import TypeVar

import typer

from imagelane.settings import WireSettings
from imagelane.terminal import say

_Settings = TypeVar("_Settings", bound=WireSettings)


def load_settings(context: typer.Context, type_: type[_Settings]) -> _Settings:
    """Return the settings from the environment, and name misspelt variables on stderr."""
    settings = type_.from_env(context.obj)
    for line in type_.misspelt(context.obj):
        say(line, err=True)
    return settings
