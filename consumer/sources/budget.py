"""A bound on the bytes of fetched images in memory. Pure asyncio, one event loop, no IO."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """Lets holds in by their order of arrival, as long as all of them fit.

    First come, first served: a large hold at the head makes small ones behind it wait, so it can
    never starve. A hold larger than the whole budget gets in alone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held_bytes(self) -> int:
        """The bytes of all holds that are in."""
        return self._held_bytes

    @asynccontextmanager
    async def hold(self, byte_length: int) -> AsyncIterator[None]:
        """Wait until `byte_length` bytes fit and hold them until the block ends."""
        await self._enter(byte_length)
        try:
            yield
        finally:
            self._leave(byte_length)

    async def _enter(self, byte_length: int) -> None:
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((byte_length, entered))
        self._admit()
        try:
            await entered
        except asyncio.CancelledError:
            if entered.done() and not entered.cancelled():
                self._leave(byte_length)  # let in and cancelled in the same turn of the loop
            else:
                self._admit()  # those behind it may fit now
            raise

    def _leave(self, byte_length: int) -> None:
        self._held_bytes -= byte_length
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            byte_length, entered = self._waiting[0]
            if not entered.done():  # done here means cancelled while it waited
                if self._held_bytes and self._held_bytes + byte_length > self._limit_bytes:
                    return
                self._held_bytes += byte_length
                entered.set_result(None)
            self._waiting.popleft()
