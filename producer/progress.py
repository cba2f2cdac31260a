"""How far publishing is: a bar on a terminal, a plain line now and then otherwise. On stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_PLAIN_EVERY_SECONDS: Final = 5.0
_ONLY_TASK: Final = TaskID(0)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What is counted: `done` ended well, `failed` did not; without waiting, published is done."""

    published: int = 0
    done: int = 0
    failed: int = 0

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def line(self, elapsed_seconds: float) -> str:
        """Return the tally in one line, with the rate of what ended."""
        rate = self.ended / elapsed_seconds if elapsed_seconds > 0 else 0.0
        return (
            f"published {self.published}, done {self.done}, failed {self.failed}, "
            f"{rate:.1f}/s in {elapsed_seconds:.1f} s"
        )


class Display:
    """Shows a tally as it grows: in `bar`, or without one as a line now and then."""

    def __init__(self, bar: Progress | None, *, total: int | None, started: float) -> None:
        self._bar = bar
        self._total = total
        self._started = self._shown = started

    def show(self, tally: Tally, now: float) -> None:
        """Show the tally; `now` is in seconds of the clock that `started` is of."""
        line = tally.line(now - self._started)
        if self._bar:
            self._bar.update(_ONLY_TASK, completed=tally.ended, total=self._total, description=line)
        elif now - self._shown >= _PLAIN_EVERY_SECONDS:
            self._shown = now
            typer.echo(line, err=True)


@contextmanager
def display(*, total: int | None, started: float) -> Iterator[Display]:
    """Show progress while the body runs; `total` None is not known, so there is no ETA."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Display(None, total=total, started=started)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        # On one terminal, lines of stdout go above the bar; stdout in a pipe is left alone.
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    ) as bar:
        bar.add_task("", total=total)
        yield Display(bar, total=total, started=started)
