"""How far publishing is: a bar on a terminal, a plain line now and then otherwise. On stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
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


@contextmanager
def display(tally: Tally, *, total: int | None) -> Iterator[Callable[[], None]]:
    """Yield what shows the tally as it stands; show it once more when the body has ended well.

    `total` None is not known, so there is no ETA.
    """
    started = shown = time.monotonic()
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        # On one terminal, lines of stdout go above the bar; stdout in a pipe is left alone.
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total)

    def show() -> None:
        nonlocal shown
        now = time.monotonic()
        line = tally.line(now - started)
        bar.update(task, completed=tally.ended, description=line)
        if bar.disable and now - shown >= _PLAIN_EVERY_SECONDS:
            shown = now
            typer.echo(line, err=True)

    with bar:
        yield show
    typer.echo(tally.line(time.monotonic() - started), err=True)
