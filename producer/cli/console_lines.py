"""Records as lines of Kafka's console tools, and as kcat commands. Pure: bytes in, bytes out.

kafka-console-producer with parse.headers (and parse.key) takes

    header:value,header:value TAB [key TAB] value

and kafka-console-consumer prints, by its options,

    CreateTime:1764000000000 TAB Partition:0 TAB Offset:7 TAB Delivery:1 TAB Epoch:0 TAB
    header:value,... TAB key TAB value

with `NO_HEADERS` for none and `null` for a null key or value. A line does not say whether it has a
key, nor whether `null` is a text, so `parse_line` returns every reading. The signature covers key
and value, so it holds for one reading alone.
"""

import re
import shlex
from dataclasses import dataclass
from typing import Final

import orjson

from schemas import Headers, TimestampType

_COLUMN: Final = re.compile(
    rb"(?:(?P<clock>CreateTime|LogAppendTime):(?P<ms>\d+)|NO_TIMESTAMP"
    rb"|(?:Partition|Offset|Delivery|Epoch):\w+)\t"
)
_CLOCKS: Final = {b"CreateTime": TimestampType.CREATE, b"LogAppendTime": TimestampType.APPEND}
# The console tools end a line at each of the two, and split columns at the third.
_NOT_IN_A_COLUMN: Final = b"\n\r\t"


class NotSignable(ValueError):
    """A value or key that cannot be signed, or that a console line cannot carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLine:
    """A parsed line. `readings` are (key, value), the likeliest first; at least one."""

    headers: Headers
    readings: tuple[tuple[bytes | None, bytes | None], ...]
    timestamp_ms: int | None
    timestamp_type: TimestampType


def parse_line(line: bytes) -> ConsoleLine:
    """Parse a line of either console tool, without its line end; any bytes parse."""
    timestamp_ms, timestamp_type = None, TimestampType.APPEND
    while column := _COLUMN.match(line):
        if column["clock"]:
            timestamp_ms, timestamp_type = int(column["ms"]), _CLOCKS[column["clock"]]
        line = line[column.end() :]
    headers, tab, rest = line.partition(b"\t")
    if not tab:
        headers, rest = b"", line
    return ConsoleLine(
        headers=_parse_headers(headers),
        readings=_readings(rest),
        timestamp_ms=timestamp_ms,
        timestamp_type=timestamp_type,
    )


def id_of(value: bytes) -> str:
    """Return the `id` of a JSON object.

    Raises:
        NotSignable: it has none.
    """
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise NotSignable(f"not JSON: {exc.msg} at character {exc.pos}") from exc
    id = members.get("id") if isinstance(members, dict) else None
    if not isinstance(id, str):
        raise NotSignable("not a JSON object with a string `id`")
    return id


def format_console(headers: Headers, key: bytes | None, value: bytes) -> bytes:
    """Return the line for kafka-console-producer, without a line end.

    With a key it needs parse.headers and parse.key, with the null key parse.headers alone.

    Raises:
        NotSignable: the key or the value has a TAB or a line end.
    """
    columns = [b",".join(b"%s:%s" % (name.encode(), text) for name, text in headers)]
    columns += [value] if key is None else [key, value]
    if any(character in column for column in columns for character in _NOT_IN_A_COLUMN):
        raise NotSignable("a TAB or a line end in it; send compact JSON and a plain key")
    return b"\t".join(columns)


def format_kcat(
    topic: str, brokers: str, headers: Headers, key: bytes | None, value: bytes
) -> bytes:
    """Return the shell command by which kcat sends the record.

    Raises:
        NotSignable: the key or the value has a TAB or a line end, or is not UTF-8.
    """
    format_console(headers, key, value)  # kcat splits a value at line ends, too
    try:
        words = ["kcat", "-P", "-b", brokers, "-t", topic]
        words += [] if key is None else ["-k", key.decode()]
        for name, text in headers:
            words += ["-H", f"{name}={text.decode()}"]
        return f"printf %s {shlex.quote(value.decode())} | {shlex.join(words)}".encode()
    except UnicodeDecodeError as exc:
        raise NotSignable("not UTF-8") from exc


def _parse_headers(column: bytes) -> Headers:
    if column == b"NO_HEADERS":
        return ()
    headers: list[tuple[str, bytes]] = []
    for piece in column.split(b","):
        name, colon, text = piece.partition(b":")
        if colon:
            headers.append((name.decode(errors="replace"), text))
        elif headers:  # a comma inside a value
            headers[-1] = (headers[-1][0], headers[-1][1] + b"," + piece)
    return tuple(headers)


def _readings(rest: bytes) -> tuple[tuple[bytes | None, bytes | None], ...]:
    key, tab, value = rest.partition(b"\t")
    pairs: list[tuple[bytes | None, bytes]] = [(None, rest)]
    if tab:
        pairs = [(key, value), (None, rest)] + ([(None, value)] if key == b"null" else [])
    nulls = [(key, None) for key, value in pairs if value == b"null"]
    return (*pairs, *nulls)
