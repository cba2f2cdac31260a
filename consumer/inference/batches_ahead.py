"""Up to two batches in the GPU thread, so that the device never waits for the event loop.

Between two batches the device would stand still while the answers of the first go round.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

_MOST: Final = 2


class BatchesAhead:
    """The batches of one queue that the GPU thread has and that are not answered."""

    def __init__(self) -> None:
        self._batches: deque[asyncio.Task[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches)

    async def advance(
        self, start: Callable[[], Coroutine[Any, Any, None]], may_go_ahead: Callable[[], bool]
    ) -> None:
        """Start one batch, or two while `may_go_ahead`; wait for the first of them."""
        while not self._batches or (len(self._batches) < _MOST and may_go_ahead()):
            self._batches.append(asyncio.create_task(start()))
        await self._batches.popleft()

    async def finish(self) -> None:
        """Wait for all of them."""
        while self._batches:
            await self._batches.popleft()

    async def cancel(self) -> None:
        """Give them up; the GPU thread ends the batch that it runs."""
        for batch in self._batches:
            batch.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
