"""How far publishing is: a bar on a terminal, a plain line now and then otherwise. On stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

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


class Display(Protocol):
    """Shows a tally as it grows."""

    def show(self, tally: Tally, now: float) -> None:
        """Show it; `now` is monotonic seconds."""


class _PlainDisplay:
    def __init__(self, started: float) -> None:
        self._started = started
        self._shown = started

    def show(self, tally: Tally, now: float) -> None:
        if now - self._shown >= _PLAIN_EVERY_SECONDS:
            self._shown = now
            typer.echo(tally.line(now - self._started), err=True)


class _BarDisplay:
    def __init__(self, bar: Progress, task: TaskID, started: float) -> None:
        self._bar, self._task, self._started = bar, task, started

    def show(self, tally: Tally, now: float) -> None:
        self._bar.update(
            self._task, completed=tally.ended, description=tally.line(now - self._started)
        )


@contextmanager
def display(*, total: int | None, started: float) -> Iterator[Display]:
    """Show progress while the body runs; `total` None is not known, so there is no ETA."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainDisplay(started)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # On one terminal, lines of stdout go above the bar; stdout in a pipe is left alone.
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )
    with bar:
        yield _BarDisplay(bar, bar.add_task("", total=total), started)
