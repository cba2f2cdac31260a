"""The settings that a command was given."""

from typing import TypeVar

import typer

from imagelane.settings import WireSettings
from imagelane.terminal import say

_Settings = TypeVar("_Settings", bound=WireSettings)


def settings_given(context: typer.Context, type_: type[_Settings]) -> _Settings:
    """Return the settings; a variable that nearly has the name of one is named on stderr.

    Raises:
        FatalError: a setting is missing or bad.
    """
    settings = type_.from_env(context.obj)
    for line in type_.misspelt(context.obj):
        say(line, err=True)
    return settings
