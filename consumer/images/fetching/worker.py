"""`python -m consumer.images.fetching.worker`: fetch what standard input's socket asks for.

The first frame holds the options, its answer says whether they work. Then, as JSON arrays:

    ["fetch", number, URI, URL or null, bytes at most, seconds]   asked by the consumer
    ["granted", number], ["cancel", number], ["window", bytes]
    ["want", number, bytes]                                       asked by this process
    ["image", number, SHA-256, seconds to decode, bytes of the window] + descriptor, or else
    ["redirect", number, location as Latin-1, seconds left], ["forbidden", number, reason],
    ["failed", number, code, message], ["unavailable", number, code, message, seconds or null]
    ["ticks", pauses]                                             twice a second

Fetches share nothing but open connections. The process ends with the socket.
"""

import asyncio
import os
import resource
import signal
import socket
import traceback
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from yarl import URL

from consumer.errors import Failed, Unavailable
from consumer.images.decoding.confinement import die_with_parent, forbid_inspection
from consumer.images.decoding.cost import estimated_seconds
from consumer.images.fetching.start import OPTIONS_JSON, STARTED_JSON, Started
from consumer.images.frames import Frames
from consumer.images.loop_clock import LoopClock, every_tick
from consumer.images.sealed import SealedImage
from consumer.images.sources import ImageSource
from consumer.images.sources.data import DataSource
from consumer.images.sources.file import FileSource
from consumer.images.sources.hosts import NotAllowedError
from consumer.images.sources.http import Redirect
from consumer.images.sources.options import FetchOptions
from consumer.runtime import limits
from imagelane.exits import FatalError
from schemas import Code

if TYPE_CHECKING:
    from consumer.images.sources.http_requests import HttpRequests

_MAX_FRAME_BYTES: Final = 1 << 20
_MAX_LOCATION_BYTES: Final = 20_000  # more than any URL may have
_SEAL_ON_LOOP_BYTES: Final = 1 << 20  # takes half a millisecond
_MAX_LENT_BYTES: Final = 512 << 10  # of one image


class Window:
    """Bytes that may be fetched before the consumer has reserved them.

    A small image needs no question for memory. The consumer reserves its bytes when it arrives, and
    gives them back to the window: flow control, as of HTTP/2 (RFC 9113, section 5.2).
    """

    def __init__(self) -> None:
        self._left_bytes = 0

    def give(self, byte_length: int) -> None:
        """Add bytes that are reserved now, or that are held no longer."""
        self._left_bytes += byte_length

    def take(self, byte_length: int) -> bool:
        """Take bytes, if so many are left."""
        if byte_length > self._left_bytes:
            return False
        self._left_bytes -= byte_length
        return True


class AskedRoom:
    """Memory of one fetch: lent by the window, or reserved in the consumer's process."""

    def __init__(self, frames: Frames, number: int, window: Window) -> None:
        self._frames = frames
        self._number = number
        self._window = window
        self._granted_bytes = 0
        self._granted: asyncio.Future[None] | None = None
        self.lent_bytes = 0

    async def resize(self, byte_length: int) -> None:
        """Wait until that many bytes in all may be held; a smaller number frees none yet."""
        if byte_length <= max(self.lent_bytes, self._granted_bytes):
            return
        if self._borrows(byte_length):
            self.lent_bytes = byte_length
            return
        self._granted = asyncio.get_running_loop().create_future()
        self._frames.send(orjson.dumps(["want", self._number, byte_length]))
        await self._granted
        self._granted_bytes = byte_length
        self.give_back()

    def _borrows(self, byte_length: int) -> bool:
        if self._granted_bytes or byte_length > _MAX_LENT_BYTES:
            return False
        return self._window.take(byte_length - self.lent_bytes)

    def give_back(self) -> None:
        """Give the window what it lent."""
        self._window.give(self.lent_bytes)
        self.lent_bytes = 0

    def grant(self) -> None:
        """End the wait of `resize`."""
        if self._granted and not self._granted.done():
            self._granted.set_result(None)


class Fetcher:
    """Fetches all that it is asked for at once: the consumer's process holds the limits."""

    def __init__(self, end: socket.socket) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._options: asyncio.Future[FetchOptions] = asyncio.get_running_loop().create_future()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames = Frames(
            end, max_bytes=_MAX_FRAME_BYTES, received=self._received, lost=self._lost
        )
        self._running: dict[int, tuple[asyncio.Task[None], AskedRoom]] = {}
        self._sources: Mapping[str, ImageSource] = {}
        self._requests: HttpRequests | None = None
        self._clock = LoopClock()
        self._window = Window()

    async def run(self) -> None:
        """Open what the options allow, say so, and serve until the socket ends."""
        options = await self._options
        async with AsyncExitStack() as opened:
            try:
                await self._open(options, opened)
            except FatalError as fault:
                self._tell_start(Started(exit_code=fault.code, fault=str(fault)))
                await asyncio.sleep(0)
            else:
                self._tell_start(Started())
                self._opened.set_result(None)
                async with every_tick(self._tick):
                    await self.ended
        os._exit(0)  # waits for no thread that hangs in a file system

    async def _open(self, options: FetchOptions, opened: AsyncExitStack) -> None:
        sources: dict[str, ImageSource] = {}
        if options.file_roots:
            seconds = options.limits.total_seconds
            sources["file"] = FileSource.under(options.file_roots, total_seconds=seconds)
        if options.data_max_bytes:
            sources["data"] = DataSource(max_bytes=options.data_max_bytes)
        # Imported here: the libraries of HTTP and S3 take half a second, and may not be needed.
        if options.http:
            from consumer.images.sources.http_requests import HttpRequests

            self._requests = HttpRequests.open(options.http, options.limits)
            await opened.enter_async_context(self._requests.session)
        if options.s3:
            from consumer.images.sources.s3 import open_s3

            sources["s3"] = await opened.enter_async_context(open_s3(options.s3, options.limits))
        self._sources = sources

    def _tell_start(self, started: Started) -> None:
        self._frames.send(STARTED_JSON.dump_json(started))

    def _received(self, frame: bytes) -> None:
        if not self._options.done():
            self._options.set_result(OPTIONS_JSON.validate_json(frame))
            return
        match orjson.loads(frame):
            case ["fetch", int(number), *asked]:
                room = AskedRoom(self._frames, number, self._window)
                task = asyncio.create_task(self._serve(number, room, *asked))
                self._running[number] = task, room
            case ["granted", int(number)] if number in self._running:
                self._running[number][1].grant()
            case ["cancel", int(number)] if number in self._running:
                self._running[number][0].cancel()
            case ["window", int(byte_length)]:
                self._window.give(byte_length)

    def _lost(self, reason: str) -> None:
        self.ended.set_result(None)

    def _tick(self) -> None:
        self._clock.tick()
        self._frames.send(orjson.dumps(["ticks", self._clock.pauses]))

    async def _serve(self, number: int, room: AskedRoom, *asked: Any) -> None:
        descriptor = None
        try:
            answer, descriptor = await self._answer(room, *asked)
        finally:
            del self._running[number]
            if descriptor is None:
                room.give_back()
        kind, *facts = answer
        self._frames.send(orjson.dumps([kind, number, *facts]), descriptor)

    async def _answer(
        self, room: AskedRoom, uri: str, url: str | None, max_bytes: int, seconds: float
    ) -> tuple[list[Any], int | None]:
        try:
            fetched = await self._fetch(room, uri, url, max_bytes, seconds)
            if isinstance(fetched, Redirect):
                octets = fetched.location.encode("utf-8", "surrogateescape")[:_MAX_LOCATION_BYTES]
                return ["redirect", octets.decode("latin-1"), fetched.left_seconds], None
            image = await self._sealed(fetched, room)
        except NotAllowedError as exc:
            return ["forbidden", str(exc)], None
        except Unavailable as failed:
            after = failed.retry_after_seconds
            return ["unavailable", failed.code, failed.message, after], None
        except Failed as failed:
            return ["failed", failed.code, failed.message], None
        except Exception as exc:  # noqa: BLE001 - a bug that a host finds must cost its image alone
            at = traceback.extract_tb(exc.__traceback__)[-1]
            where = f"{type(exc).__name__} at {Path(at.filename).name}:{at.lineno}"
            return ["failed", Code.IMAGE_UNAVAILABLE, f"fetching failed with {where}"], None
        return ["image", image.sha256, image.decode_seconds, room.lent_bytes], image.descriptor

    async def _fetch(
        self, room: AskedRoom, uri: str, url: str | None, max_bytes: int, seconds: float
    ) -> bytes | Redirect:
        await self._opened  # a fetch may be asked for before the sources are open
        if url is None:
            scheme = uri.partition(":")[0].lower()
            return await self._sources[scheme].fetch(uri, max_bytes, room)
        assert self._requests is not None, "http is asked for, and closed"
        return await self._requests.ask(uri, URL(url, encoded=True), max_bytes, seconds, room)

    async def _sealed(self, data: bytes, room: AskedRoom) -> SealedImage:
        seconds = estimated_seconds(data, self._options.result().decode)
        if len(data) <= _SEAL_ON_LOOP_BYTES:
            return SealedImage.of(data, seconds)
        await room.resize(2 * len(data))  # both copies, until this process drops its own
        return await asyncio.to_thread(SealedImage.of, data, seconds)


async def main(end: socket.socket) -> None:
    """Serve one consumer."""
    await Fetcher(end).run()


def _prepare() -> None:
    """End with the consumer, close this memory to others, and leave signals to the consumer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    forbid_inspection()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits.collect_seldom()
    limits.return_large_blocks()
    limits.raise_descriptor_limit()


if __name__ == "__main__":
    _prepare()
    asyncio.run(main(socket.socket(fileno=0)))
