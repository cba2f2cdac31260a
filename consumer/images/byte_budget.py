"""A bound on the bytes of images in memory, as fetched and as pixels. No IO, one event loop.

A reservation grows before its bytes are read and shrinks when they are freed. It holds the fetched
bytes together with `kept_bytes` for the pixels that they become: taken apart, an image could wait
for its pixels while it holds its bytes.

A reservation is arriving (no bytes yet), growing (has bytes, wants more) or running. Growing ones
go before arriving ones, each queue first come, first served, so a large one at its head never
starves. If growing reservations hold every byte, none of them would ever end (deadlock): the first
is overcommitted, and exceeds the limit until it ends or shrinks.

Invariant: without the overcommitted reservation, at most one, all others fit into the limit. An
image larger than the whole budget gets in alone.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


class Reservation:
    """One image's part of a budget."""

    def __init__(self, budget: "ByteBudget", kept_bytes: int) -> None:
        self._budget = budget
        self._kept_bytes = kept_bytes
        self.held_bytes = 0  # changed by the budget alone

    async def resize(self, byte_length: int) -> None:
        """Hold `byte_length` bytes; wait until they fit, if that is more.

        A reservation of 0 bytes holds nothing for pixels either: a host that hangs costs nothing.
        """
        await self._budget.resize(self, byte_length + self._kept_bytes if byte_length else 0)

    def try_resize(self, byte_length: int) -> bool:
        """Hold `byte_length` bytes if they fit now; False if they do not."""
        return self._budget.try_resize(self, byte_length + self._kept_bytes)

    async def keep_pixels(self) -> None:
        """Give the fetched bytes back, and hold those of the pixels alone."""
        await self._budget.resize(self, self._kept_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    reservation: Reservation
    more_bytes: int
    entered: asyncio.Future[None]


class ByteBudget:
    """Bounds the bytes of all reservations together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._stuck_bytes = 0  # part of it, held by reservations that wait to grow
        self._overcommitted: Reservation | None = None
        self._growing: deque[_Waiter] = deque()
        self._arriving: deque[_Waiter] = deque()

    @property
    def held_bytes(self) -> int:
        """The bytes of all reservations."""
        return self._held_bytes

    @property
    def limit_bytes(self) -> int:
        """The most that `held_bytes` may be."""
        return self._limit_bytes

    @property
    def waiting(self) -> int:
        """How many reservations wait for bytes."""
        return len(self._growing) + len(self._arriving)

    @asynccontextmanager
    async def reserve(
        self, byte_length: int = 0, *, kept_bytes: int = 0
    ) -> AsyncIterator[Reservation]:
        """Wait until `byte_length` bytes fit; all are given back when the block ends."""
        reservation = Reservation(self, kept_bytes)
        try:
            await reservation.resize(byte_length)
            yield reservation
        finally:
            await reservation.resize(0)

    async def resize(self, reservation: Reservation, byte_length: int) -> None:
        """Hold `byte_length` bytes in all for `reservation`; wait until they fit."""
        more = byte_length - reservation.held_bytes
        if more > 0 and reservation is not self._overcommitted:
            await self._wait(reservation, more)
        else:
            if more < 0 and reservation is self._overcommitted:
                self._overcommitted = None  # it shrank, so another may exceed the limit
            self._add(reservation, more)
            self._admit()

    def try_resize(self, reservation: Reservation, byte_length: int) -> bool:
        """Hold `byte_length` bytes in all for `reservation` if they fit and no other waits."""
        more = byte_length - reservation.held_bytes
        if self.waiting or self._held_bytes + more > self._limit_bytes:
            return False
        self._add(reservation, more)
        return True

    async def _wait(self, reservation: Reservation, more_bytes: int) -> None:
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._growing if reservation.held_bytes else self._arriving
        queue.append(_Waiter(reservation, more_bytes, entered))
        self._stuck_bytes += reservation.held_bytes
        self._admit()
        try:
            await entered
        except asyncio.CancelledError:
            if entered.cancelled():
                self._stuck_bytes -= reservation.held_bytes
                self._admit()  # those behind it may fit now
            raise

    def _admit(self) -> None:
        while queue := self._growing or self._arriving:
            waiter = queue[0]
            if not waiter.entered.done():  # done here means cancelled while it waited
                if self._held_bytes + waiter.more_bytes > self._limit_bytes:
                    if self._stuck_bytes < self._held_bytes:  # the overcommitted never waits
                        return
                    self._overcommitted = waiter.reservation
                self._stuck_bytes -= waiter.reservation.held_bytes
                self._add(waiter.reservation, waiter.more_bytes)
                waiter.entered.set_result(None)
            queue.popleft()

    def _add(self, reservation: Reservation, more_bytes: int) -> None:
        reservation.held_bytes += more_bytes
        self._held_bytes += more_bytes
