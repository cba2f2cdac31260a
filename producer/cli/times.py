"""Times on the command line."""

from datetime import UTC, datetime

import typer


def unix_seconds(text: str) -> float:
    """Return the Unix seconds of a number or an ISO 8601 time; one without an offset is UTC."""
    try:
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        given = datetime.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(
            f"{text!r} is no time; such as 2026-11-01 or 2026-11-01T12:30+01:00 is"
        ) from exc
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
