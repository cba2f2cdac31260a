"""The consumer's live line on a terminal, which replaces a log line for each record."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from imagelane.terminal import clock_time

RECORD: Final = "record done"
_RATE_SECONDS: Final = 5.0
_ON_DEMAND: Final = ("blip", "text")
_STATES: Final = ("loading", "loaded", "on device", "offloaded", "load failed")


class LiveLine:
    """Counts the log's lines about records, and drops them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._outcomes: Counter[str] = Counter()
        self._models: dict[str, str] = {}
        self._rate_since = (clock(), 0)
        self._rate = 0.0
        self.waiting: int | None = None  # records of the assigned partitions, not committed

    def process(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> Mapping[str, Any]:
        """Read an event of the log, as a processor of structlog; raise `DropEvent` for a record's.

        It goes before the renderer.
        """
        text = str(event.get("event"))
        if text == RECORD:
            self._outcomes[str(event.get("outcome"))] += 1
            raise structlog.DropEvent
        model, _, state = text.partition(" ")
        if model in _ON_DEMAND and state in _STATES:
            self._models[model] = state
        return event

    async def follow(self, waiting: Callable[[], Awaitable[int]]) -> None:
        """Ask every few seconds how many records wait, until cancelled."""
        while True:
            self.waiting = await waiting()
            await asyncio.sleep(_RATE_SECONDS)

    def text(self) -> str:
        """Return the line: records done, rate, failures, backlog and the models on demand."""
        now, count = self._clock(), self._outcomes.total()
        since, before = self._rate_since
        if now - since >= _RATE_SECONDS:
            self._rate, self._rate_since = (count - before) / (now - since), (now, count)
        models = "".join(f"  {name.upper()} {state}" for name, state in self._models.items())
        refused = self._outcomes["refused"]
        return (
            f"{self._outcomes['ok']} done  {self._rate:.1f}/s  failed {self._outcomes['error']}"
            f"{f'  refused {refused}' if refused else ''}{self._of_backlog()}{models}"
        )

    def _of_backlog(self) -> str:
        if not self.waiting:
            return ""
        eta = f"  ETA {clock_time(self.waiting / self._rate)}" if self._rate else ""
        return f"  {self.waiting} waiting{eta}"
