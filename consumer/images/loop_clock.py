"""A clock of the event loop's running time: our own pause is not the silence of a host.

A garbage collection, a stopped process or a virtual machine that was moved makes every deadline
pass at once, with the answers unread in the sockets. This clock advances by `MAX_GAP_SECONDS` at
most between two ticks, and counts the pauses, so that what failed during one counts against nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final

TICK_SECONDS: Final = 0.5
MAX_GAP_SECONDS: Final = 1.0


class LoopClock:
    """`now` gives seconds of a clock that never goes back; `tick` is called every TICK_SECONDS."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._ticked_at = now()
        self._seconds = 0.0
        self._pauses = 0

    @property
    def seconds(self) -> float:
        """Seconds since this clock was made, pauses left out."""
        return self._seconds + min(self._gap_seconds, MAX_GAP_SECONDS)

    @property
    def pauses(self) -> int:
        """The number of pauses so far, one that ended a moment ago included."""
        return self._pauses + (self._gap_seconds > MAX_GAP_SECONDS)

    def tick(self) -> None:
        """Advance the clock."""
        self._seconds, self._pauses = self.seconds, self.pauses
        self._ticked_at = self._now()

    def note_pause(self) -> None:
        """Count a pause of another process of the consumer."""
        self._pauses += 1

    @property
    def _gap_seconds(self) -> float:
        return self._now() - self._ticked_at


@asynccontextmanager
async def every_tick(action: Callable[[], None]) -> AsyncIterator[None]:
    """Call `action` every TICK_SECONDS until the block ends."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            action()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
