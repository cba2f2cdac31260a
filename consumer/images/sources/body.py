"""Reads the body of an HTTP answer, within its limits."""

import asyncio
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from aiohttp import ClientResponse

from consumer.images.sources import Room, too_large, unavailable
from consumer.images.sources.options import FetchLimits

_FIRST_BYTES: Final = 65_536
# A body that comes in parts this small is soon read four times a second only.
_FLUENT_SECONDS: Final = 0.25
_SMALL_BYTES: Final = 4096
_GATHER_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Reads a body into memory that is reserved before it is read."""

    uri: str
    max_bytes: int
    room: Room
    limits: FetchLimits

    async def read(self, response: ClientResponse, clock: asyncio.Timeout) -> bytes:
        """Return the whole body; its deadline `clock` stops while it waits for memory.

        Raises:
            Failed: `image_too_large`, by its Content-Length or by its bytes.
            Unavailable: it comes too slowly.
        """
        said = response.content_length
        limit = self.max_bytes + 1 if said is None else said
        if said is not None and said > self.max_bytes:  # not read at all
            raise too_large(self.uri, self.max_bytes)
        content, size, granted = BytesIO(), 0, 0  # `getvalue` of BytesIO copies nothing
        start_seconds = left_seconds(clock)
        while size < limit:
            if size == granted:
                granted = min(limit, max(_FIRST_BYTES, 2 * size))
                await self._grow(granted, clock)
            chunk = await response.content.read(granted - size)
            if not chunk:
                break
            size += content.write(chunk)
            if len(chunk) < _SMALL_BYTES and start_seconds - left_seconds(clock) > _FLUENT_SECONDS:
                await _let_gather(response)
            if not self.limits.allows(size, start_seconds - left_seconds(clock)):
                raise unavailable(self.uri, "it comes too slowly")
        if size > self.max_bytes:
            raise too_large(self.uri, self.max_bytes)
        await self.room.resize(size)
        return content.getvalue()

    async def _grow(self, byte_length: int, clock: asyncio.Timeout) -> None:
        left = left_seconds(clock)
        clock.reschedule(None)
        await self.room.resize(byte_length)
        clock.reschedule(asyncio.get_running_loop().time() + left)


async def _let_gather(response: ClientResponse) -> None:
    """Pause reading: hundreds of trickling bodies would each wake the loop for a byte."""
    if response.connection is None or response.connection.protocol is None:
        return  # it is complete
    protocol = response.connection.protocol
    protocol.pause_reading()
    try:
        await asyncio.sleep(_GATHER_SECONDS)
    finally:
        protocol.resume_reading()


def left_seconds(clock: asyncio.Timeout) -> float:
    """Return the time until the deadline of `clock`, which must have one."""
    when = clock.when()
    assert when is not None
    return when - asyncio.get_running_loop().time()
