"""Names of tables on the command line."""

import re
from typing import Final

import typer

TABLE: Final = "imagelane_results"
_PATTERN: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,55}\.)?[A-Za-z_][A-Za-z0-9_]{0,55}")


def table_named(name: str) -> str:
    """Check a table's name; `_places` after it must fit into PostgreSQL's 63 bytes."""
    if not _PATTERN.fullmatch(name):
        raise typer.BadParameter("NAME or SCHEMA.NAME: letters, digits, _", param_hint="--table")
    return name
