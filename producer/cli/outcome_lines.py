"""Outcomes as lines of text or of JSON."""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import orjson
from rich.cells import cell_len

from imagelane.terminal import json_line, printable
from imagelane.uris import display
from producer.outcomes import Outcome
from schemas import Record

_NAME_CHARS: Final = 60
_NAME_COLUMNS: Final = 28


def outcome_line(
    outcome: Outcome, uri: str | None, *, as_json: bool = False, with_id: bool = False
) -> str:
    """Return the image's name, status, milliseconds, and caption or code and message; the id last.

    As JSON: the result as received, in one line and with controls as escapes; without a result
    `id`, `status` and `error`.
    """
    if as_json and outcome.value is not None:
        return json_line(outcome.value.decode(errors="replace"))
    if as_json:
        error = {"code": outcome.code, "message": outcome.message}
        line = {"id": outcome.id, "status": outcome.status, "error": error}
        return json_line(orjson.dumps(line).decode())
    result = outcome.result
    total_ms = result.timing_ms.total if result else None
    milliseconds = "-" if total_ms is None else f"{total_ms:.0f} ms"
    # A record that does not verify has no URI: its place is its name.
    name = printable(outcome.id if uri is None else name_of(uri))
    padding = " " * max(0, _NAME_COLUMNS - cell_len(name))
    columns = f"{name}{padding}  {outcome.status:<7}  {milliseconds:>8}  {_details(outcome, uri)}"
    return printable(f"{columns}  {outcome.id}" if with_id and uri else columns).rstrip()


def _details(outcome: Outcome, uri: str | None) -> str:
    result = outcome.result
    if outcome.status != "ok":
        # Messages begin with the URI, whose name stands in the first column already.
        message = (outcome.message or "").removeprefix(f"{display(uri)}: " if uri else "")
        return ": ".join(filter(None, (outcome.code, message)))
    if result and result.caption:
        return result.caption.text
    return f"embedding of {result.embedding.dim}" if result and result.embedding else ""


def place_of(record: Record) -> str:
    """Return a record's place in the log."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


def name_of(uri: str) -> str:
    """Return the last part of the URI's path, short, without user and query."""
    scheme = uri.partition(":")[0].lower()
    try:
        parts = urlsplit(uri)
        # A path without a host may begin with a user and a password.
        has_path = scheme == "file" or (scheme != "data" and parts.netloc)
        name = PurePosixPath(unquote(parts.path)).name if has_path else ""
    except ValueError:  # not a URI; the consumer reports it
        name = ""
    return (name or f"{scheme}:")[:_NAME_CHARS]
