"""Names of tables, as the command line takes them."""

import re
from typing import Final

import typer

TABLE: Final = "imagelane_results"
_PATTERN: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,55}\.)?[A-Za-z_][A-Za-z0-9_]{0,55}")


def table_named(name: str) -> str:
    """Return the name.

    Raises:
        BadParameter: it is no plain name, or leaves no room for `_places` in PostgreSQL's 63 bytes.
    """
    if not _PATTERN.fullmatch(name):
        raise typer.BadParameter("NAME or SCHEMA.NAME: letters, digits, _", param_hint="--table")
    return name
