"""Text from others on its way to a terminal, a log line or a line of JSON: one line, no controls.

Ids, captions, messages, metadata, file names and header names may hold anything: an escape sequence
would steer the terminal, a line end would forge a line, and a bidirectional control would show a
text in another order than it has. Whatever is written to a person or as a line passes here.
"""

import re
from typing import Final

import typer

# JSON allows these outside strings, where they are white space; inside they are escapes already.
_LINE_ENDS: Final = re.compile(r"[\t\r\n]")


def printable(text: str) -> str:
    """Return `text` in one line that cannot steer a terminal: U+FFFD stands for each control.

    What counts is `str.isprintable`: no U+0000-1F, no U+007F-9F, no line separator, no
    bidirectional or other invisible control, no surrogate.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def json_line(document: str) -> str:
    """Return a JSON document in one line and with the same meaning, each control as an escape.

    Numbers, order and escapes stay as they are. The document must be valid.
    """
    line = _LINE_ENDS.sub(" ", document)
    if line.isprintable():
        return line
    return "".join(
        character if character.isprintable() else _escape(character) for character in line
    )


def say(text: str, *, err: bool = False) -> None:
    """Write `text` as one line, without controls, to stdout or stderr."""
    typer.echo(printable(text), err=err)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
