"""Outcomes as lines: for people without control characters, for machines as JSON."""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import orjson

from producer.awaiting import Outcome
from schemas import Record

_NAME_CHARS: Final = 60


def outcome_line(outcome: Outcome, uri: str | None, as_json: bool) -> str:
    """Return the id, status, milliseconds, name of the image, and caption or code and message.

    As JSON: the result as it was received; without one, `id`, `status` and `error`.
    """
    if as_json and outcome.value is not None:
        return outcome.value.decode(errors="replace")
    if as_json:
        error = {"code": outcome.code, "message": outcome.message}
        line = {"id": outcome.id, "status": outcome.status, "error": error}
        return orjson.dumps(line).decode()
    result = outcome.result
    total_ms = result.timing_ms.total if result else None
    milliseconds = "-" if total_ms is None else f"{total_ms:.0f} ms"
    if outcome.status != "ok":
        said = ": ".join(filter(None, (outcome.code, outcome.message)))
    elif result and result.caption:
        said = result.caption.text
    else:
        said = f"embedding of {result.embedding.dim}" if result and result.embedding else ""
    columns = f"{outcome.id:<26}  {outcome.status:<7}  {milliseconds:>8}  {_name(uri)}  {said}"
    return printable(columns).rstrip()


def place_of(record: Record) -> str:
    """Return where a record stands in the log."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


def printable(text: str) -> str:
    """Return `text` in one line that cannot move a terminal's cursor."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _name(uri: str | None) -> str:
    """Return the last part of the URI's path: enough for a person, and bounded."""
    if uri is None:
        return "-"
    if uri.startswith("data:"):
        return "data:"
    try:
        name = PurePosixPath(unquote(urlsplit(uri).path)).name
    except ValueError:  # not a URI after all; the consumer says so
        name = ""
    return (name or uri)[:_NAME_CHARS]
