"""A bound on the bytes of images in memory, as fetched and as pixels. No IO, one event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True, eq=False)
class Hold:
    """What one image holds; it grows by `ByteBudget.resize` alone."""

    byte_length: int = 0


class Budget(Protocol):
    """What a source asks for room: `ByteBudget` itself, or a record's lease of it."""

    def hold(self, byte_length: int) -> AbstractAsyncContextManager[Hold]:
        """Wait until `byte_length` bytes fit and hold them until the block ends."""

    async def resize(self, hold: Hold, byte_length: int) -> None:
        """Hold `byte_length` bytes instead; wait until they fit, if that is more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    hold: Hold
    byte_length: int  # what it wants on top
    entered: asyncio.Future[None]


class ByteBudget:
    """Lets holds in by their order of arrival, as long as all of them fit.

    First come, first served: a large hold at the head makes small ones behind it wait, so it can
    never starve. A hold larger than the whole budget gets in alone.

    A hold that has bytes may grow, and those that wait for that go first. When all that is held is
    held by them, none would ever leave: one is then favoured, and grows above the limit as it needs
    to until it leaves or shrinks. So what is above the limit is one image at most.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._stuck_bytes = 0  # of those, by holds that wait to grow
        self._favoured: Hold | None = None
        self._growing: deque[_Waiter] = deque()
        self._arriving: deque[_Waiter] = deque()

    @property
    def held_bytes(self) -> int:
        """The bytes of all holds that are in."""
        return self._held_bytes

    @asynccontextmanager
    async def hold(self, byte_length: int) -> AsyncIterator[Hold]:
        """Wait until `byte_length` bytes fit and hold them until the block ends."""
        hold = Hold()
        try:
            await self.resize(hold, byte_length)
            yield hold
        finally:
            await self.resize(hold, 0)

    async def resize(self, hold: Hold, byte_length: int) -> None:
        """Hold `byte_length` bytes instead; wait until they fit, if that is more."""
        more = byte_length - hold.byte_length
        if more > 0 and hold is not self._favoured:
            await self._wait(hold, more)
        else:
            if more < 0 and hold is self._favoured:  # it may wait for long now, as if it had left
                self._favoured = None
            self._add(hold, more)
            self._admit()

    @asynccontextmanager
    async def lease(self, kept_bytes: int) -> AsyncIterator["Lease"]:
        """Open the part of one record, which keeps `kept_bytes` from its first hold to its end."""
        async with self.hold(0) as leased:
            yield Lease(self, leased, kept_bytes)

    async def _wait(self, hold: Hold, byte_length: int) -> None:
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._growing if hold.byte_length else self._arriving
        queue.append(_Waiter(hold, byte_length, entered))
        self._stuck_bytes += hold.byte_length
        self._admit()
        try:
            await entered
        except asyncio.CancelledError:
            if entered.cancelled():
                self._stuck_bytes -= hold.byte_length
                self._admit()  # those behind it may fit now
            raise

    def _admit(self) -> None:
        while queue := self._growing or self._arriving:
            waiter = queue[0]
            if not waiter.entered.done():  # done here means cancelled while it waited
                if self._held_bytes + waiter.byte_length > self._limit_bytes:
                    if self._stuck_bytes < self._held_bytes:  # the favoured one is never stuck
                        return
                    self._favoured = waiter.hold
                self._stuck_bytes -= waiter.hold.byte_length
                self._add(waiter.hold, waiter.byte_length)
                waiter.entered.set_result(None)
            queue.popleft()

    def _add(self, hold: Hold, byte_length: int) -> None:
        hold.byte_length += byte_length
        self._held_bytes += byte_length


class Lease:
    """One record's part: what it holds, and with it what the pixels made of that will take.

    Both at once, so that nobody who holds an image waits for room for its pixels. The pixels' part
    stays when a hold ends well, and goes when it ends with an error.
    """

    def __init__(self, budget: ByteBudget, leased: Hold, kept_bytes: int) -> None:
        self._budget = budget
        self._leased = leased
        self._kept_bytes = kept_bytes

    @asynccontextmanager
    async def hold(self, byte_length: int) -> AsyncIterator[Hold]:
        """Satisfy `Budget`; one hold at a time."""
        hold, left = Hold(), 0
        try:
            await self.resize(hold, byte_length)
            yield hold
            left = self._kept_bytes
        finally:
            await self._budget.resize(self._leased, left)

    async def resize(self, hold: Hold, byte_length: int) -> None:
        """Satisfy `Budget`. Who holds nothing keeps nothing: a host that hangs costs no room."""
        if byte_length:
            await self._budget.resize(self._leased, byte_length + self._kept_bytes)
        hold.byte_length = byte_length
