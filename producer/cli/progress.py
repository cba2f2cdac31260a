"""Progress: one line at the bottom of a terminal, else a plain one every few seconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from imagelane.terminal import clock_time, live_line, say

_PLAIN_EVERY_SECONDS: Final = 5.0
_BAR_COLUMNS: Final = 20


class Shown(Protocol):
    """Counts as a plain line, and as the live line of a terminal."""

    def line(self, elapsed_seconds: float) -> str:
        """Return the counts."""
        ...

    def bar(self, elapsed_seconds: float, total: int | None) -> str:
        """Return the counts; of `total`, if that is known."""
        ...


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of requests: `done` ended well, `failed` did not; without a wait published is done.

    `unpublished` of the failed are lines that give no request.
    `ahead` returns how many records the queue has before ours, if that is known.
    """

    published: int = 0
    done: int = 0
    failed: int = 0
    unpublished: int = 0
    skipped: int = 0
    ahead: Callable[[], int | None] = lambda: None

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def rate(self, elapsed_seconds: float) -> float:
        """Return how many ended per second."""
        return self.ended / elapsed_seconds if elapsed_seconds > 0 else 0.0

    def line(self, elapsed_seconds: float) -> str:
        """Return the counts in one line, with the rate."""
        unpublished = f" ({self.unpublished} not published)" if self.unpublished else ""
        skipped = f", skipped {self.skipped}" if self.skipped else ""
        return (
            f"published {self.published}, done {self.done}, "
            f"failed {self.failed}{unpublished}{skipped}, "
            f"{self.rate(elapsed_seconds):.1f}/s in {elapsed_seconds:.1f} s"
        )

    def bar(self, elapsed_seconds: float, total: int | None) -> str:
        """Return the live line: a bar and an ETA if `total` is known, the rate, the time."""
        rate, ended = self.rate(elapsed_seconds), self.ended + self.skipped
        ahead = f"  {count:,} ahead in the queue" if (count := self.ahead()) else ""
        tail = f"{rate:.1f}/s  failed {self.failed}  {clock_time(elapsed_seconds)}{ahead}"
        if not total:
            return f"{ended} done, {self.published} published  {tail}"
        filled = _BAR_COLUMNS * ended // total
        left = (total - ended) / rate if rate else None
        eta = f"  ETA {clock_time(left)}" if left is not None else ""
        return f"[{'#' * filled:-<{_BAR_COLUMNS}}] {ended}/{total}{eta}  {tail}"


@asynccontextmanager
async def display(tally: Shown, *, total: int | None) -> AsyncIterator[None]:
    """Show the tally while the body runs, and once more at its end or interruption."""
    started = time.monotonic()
    try:
        async with live_line(lambda: tally.bar(time.monotonic() - started, total)) as is_shown:
            plain = None if is_shown else asyncio.create_task(_say_now_and_then(tally, started))
            try:
                yield
            finally:
                if plain:
                    plain.cancel()
    except asyncio.CancelledError:
        say(tally.line(time.monotonic() - started), err=True)
        raise
    say(tally.line(time.monotonic() - started), err=True)


async def _say_now_and_then(tally: Shown, started: float) -> None:
    while True:
        await asyncio.sleep(_PLAIN_EVERY_SECONDS)
        say(tally.line(time.monotonic() - started), err=True)
