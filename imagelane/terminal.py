"""Untrusted text as one line for a terminal, a log or a file of JSON lines, without controls.

Ids, captions, messages, metadata, file names and header names may hold anything: an escape sequence
would steer the terminal, a line end would forge a line, and a bidirectional control would show a
text in another order. Every line for a person and every JSON line passes here.
"""

import asyncio
import io
import os
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TextIO

from rich.cells import cell_len, set_cell_size

from imagelane.exits import FatalError, OutputClosed

# JSON allows these outside strings, where they are white space; inside they are escapes already.
_LINE_ENDS: Final = re.compile(r"[\t\r\n]")
_ERASE: Final = "\r\x1b[2K"
_REDRAW_SECONDS: Final = 0.5

_live: Callable[[], str] | None = None
_lock = threading.RLock()  # a thread draws, others write


def printable(text: str) -> str:
    """Return `text` in one line that cannot steer a terminal: U+FFFD stands for each control.

    A control is any character that `str.isprintable` refuses: U+0000-1F, U+007F-9F, line
    separators, bidirectional and other invisible controls, surrogates.
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


def clock_time(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours where there are some: 0:07, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(text: str, *, err: bool = False, fit: bool = False) -> None:
    """Write `text` as one line, without controls, to stdout or stderr.

    With `fit` it is cut where a terminal would wrap it; in a pipe nothing is cut.

    Raises:
        OutputClosed: the reader of the stream is gone.
    """
    line, stream = printable(text), sys.stderr if err else sys.stdout
    if fit and stream.isatty():
        line = _cut(line, _width(stream))
    _write(line + "\n", stream)


def say_fatal(name: str, fatal: FatalError) -> None:
    """Print why a program ends, its name before each line."""
    for line in str(fatal).splitlines():
        say(f"{name}: {line}", err=True)


@asynccontextmanager
async def live_line(text: Callable[[], str]) -> AsyncIterator[bool]:
    """Show one line at the bottom of the terminal while the body runs; yield whether it is shown.

    It is redrawn twice a second, and other lines go above it. It needs a terminal on stderr.
    """
    global _live
    if not sys.stderr.isatty():
        yield False
        return

    async def tick() -> None:
        while True:
            _draw()
            await asyncio.sleep(_REDRAW_SECONDS)

    _live = text
    ticker = asyncio.create_task(tick())
    try:
        yield True
    finally:
        ticker.cancel()
        end_live_line()


class AboveLiveLine(io.TextIOBase):
    """A stream to stderr whose lines stand above the live line, each written at once."""

    def __init__(self) -> None:
        self._pending = ""

    def write(self, text: str) -> int:
        """Write whole lines; keep the rest until its line end comes."""
        with _lock:
            lines, end, self._pending = (self._pending + text).rpartition("\n")
            if end:
                _write(lines + end, sys.stderr)
        return len(text)


def keep_live_line(text: Callable[[], str]) -> None:
    """Show a live line from now on, redrawn by a thread, until `end_live_line`."""
    global _live
    _live = text

    def tick() -> None:
        while _live is text:
            _draw()
            time.sleep(_REDRAW_SECONDS)

    threading.Thread(target=tick, name="live line", daemon=True).start()


def end_live_line() -> None:
    """Remove the live line, if there is one."""
    global _live
    with _lock:
        _erase()
        _live = None


def _write(text: str, stream: TextIO) -> None:
    with _lock:
        _erase()
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError as exc:
            # Python flushes once more at exit, and would print an error then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise OutputClosed from exc
        _draw()


def _erase() -> None:
    if _live:
        sys.stderr.write(_ERASE)
        sys.stderr.flush()


def _draw() -> None:
    with _lock:
        if _live is None:
            return
        sys.stderr.write(_ERASE + _cut(printable(_live()), _width(sys.stderr)))
        sys.stderr.flush()


def _width(stream: TextIO) -> int:
    """Return the columns of a line: a terminal wraps in its last one."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or 80) - 1
    except OSError:
        return 79


def _cut(line: str, columns: int) -> str:
    if cell_len(line) <= columns:
        return line
    return set_cell_size(line, columns - 1).rstrip() + "…"


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
