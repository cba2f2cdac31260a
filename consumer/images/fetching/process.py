"""The consumer's end of a fetching process: start it, ask it, count its memory, replace it."""

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Final, Protocol

import orjson
import structlog

from consumer.images.fetching.answers import answer_of, discard
from consumer.images.fetching.start import OPTIONS_JSON, STARTED_JSON
from consumer.images.frames import Frames
from consumer.images.sealed import SealedImage
from consumer.images.sources import forbidden, unavailable
from consumer.images.sources.http import Redirect
from consumer.images.sources.options import FetchOptions
from imagelane.exits import ExitCode, FatalError

log = structlog.get_logger()

START_SECONDS: Final = 60.0
_MAX_FRAME_BYTES: Final = 256 << 10


class CountedRoom(Protocol):
    """Memory of the budget that a fetch may fill, now or after waiting."""

    def try_resize(self, byte_length: int) -> bool:
        """Hold that many bytes if they fit now; False if they do not."""

    async def resize(self, byte_length: int) -> None:
        """Wait until that many bytes in all may be held."""


@dataclass(slots=True, kw_only=True)
class _Fetch:
    uri: str
    room: CountedRoom
    answer: asyncio.Future[SealedImage | Redirect]
    frames: Frames  # of the process that was asked
    waiting: asyncio.Task[None] | None = field(default=None)  # for memory
    lent_bytes: int = 0  # of the process's window


class FetchProcess:
    """A process that fetches many images at once. Its death costs each of them one attempt."""

    _process: subprocess.Popen[bytes]
    _frames: Frames
    _started: asyncio.Future[None]

    def __init__(
        self,
        options: FetchOptions,
        environment: Mapping[str, str],
        paused: Callable[[], None],
        window_bytes: int,
    ) -> None:
        self._options = options
        self._window_bytes = window_bytes
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        self._environment = {**environment, "PYTHONPATH": path}
        self._paused = paused
        self._numbers = itertools.count()
        self._fetches: dict[int, _Fetch] = {}
        self._pauses = 0
        self._fault: FatalError | None = None
        self.silent_looks = 0  # in a row, in which it sent nothing

    @property
    def at_work(self) -> int:
        """The number of unanswered fetches."""
        return len(self._fetches)

    def start(self) -> None:
        """Start a process.

        It is a fresh interpreter. The secrets of hosts and stores reach it over the socket; it gets
        no other.

        Raises:
            FatalError: the system starts no process.
        """
        ours, theirs = socket.socketpair()
        self._started = asyncio.get_running_loop().create_future()
        self._pauses = self.silent_looks = self._returned_bytes = 0
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "consumer.images.fetching.worker"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=self._environment,
                    start_new_session=True,  # a terminal's Ctrl-C is not for it
                )
            except OSError as exc:
                ours.close()
                raise FatalError(
                    ExitCode.DEVICE, f"fetcher: no process can be started: {exc.strerror}"
                ) from exc
        self._frames = Frames(
            ours, max_bytes=_MAX_FRAME_BYTES, received=self._received, lost=self.replace
        )
        self._frames.send(OPTIONS_JSON.dump_json(self._options))
        self._frames.send(orjson.dumps(["window", self._window_bytes]))

    async def ready(self) -> None:
        """Wait until it can fetch what the options allow.

        Raises:
            FatalError: it cannot, it ended, or it sends nothing.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.shield(self._started)
        except TimeoutError as exc:
            raise FatalError(
                ExitCode.DEVICE, f"fetcher: its process is not ready after {START_SECONDS:g} s"
            ) from exc

    async def fetch(
        self,
        uri: str,
        max_bytes: int,
        room: CountedRoom,
        *,
        url: str | None = None,
        seconds: float = 0.0,
    ) -> SealedImage | Redirect:
        """Return the image at `uri`, its bytes reserved; of HTTP, the answer of `url` in `seconds`.

        Raises:
            Failed, Unavailable, NotAllowedError: as the source raised it.
            FatalError: no process can be started.
        """
        if self._fault:
            raise self._fault
        number = next(self._numbers)
        try:
            question = orjson.dumps(["fetch", number, uri, url, max_bytes, seconds])
        except TypeError as exc:  # half of a surrogate pair
            raise forbidden(uri, "not valid Unicode") from exc
        answer: asyncio.Future[SealedImage | Redirect] = asyncio.get_running_loop().create_future()
        fetch = _Fetch(uri=uri, room=room, answer=answer, frames=self._frames)
        self._fetches[number] = fetch
        self._frames.send(question)
        try:
            found = await self._answer(number, fetch)
            if isinstance(found, SealedImage):
                await _settle(found, room)
            return found
        finally:
            if fetch.lent_bytes and fetch.frames is self._frames:
                self._give_back(fetch.lent_bytes)

    async def _answer(self, number: int, fetch: _Fetch) -> SealedImage | Redirect:
        try:
            return await fetch.answer
        except asyncio.CancelledError:
            answer = fetch.answer
            if answer.done() and not answer.cancelled() and not answer.exception():
                discard(answer.result())
            if self._fetches.pop(number, None):
                self._frames.send(orjson.dumps(["cancel", number]))
            raise
        finally:
            if fetch.waiting:
                fetch.waiting.cancel()

    def replace(self, reason: str) -> None:
        """Kill the process and start another; its fetches become `Unavailable`."""
        self.close()
        if not self._started.done() or self._started.exception():
            text = f"fetcher: its process ended before it was ready: {reason}"
            self._fail_for_good(FatalError(ExitCode.DEVICE, text))
        else:
            log.warning("fetcher replaced", reason=reason)
        fetches, self._fetches = self._fetches, {}
        for fetch in fetches.values():
            if not fetch.answer.done():
                fetch.answer.set_exception(
                    self._fault or unavailable(fetch.uri, "the process that fetched it ended")
                )
        if self._fault:
            return
        try:
            self.start()
        except FatalError as fault:
            self._fault = fault  # the next fetch raises it

    def close(self) -> None:
        """Kill the process without waiting: a file system that hangs may keep it alive."""
        self._frames.close()
        self._process.kill()
        Thread(target=self._process.wait, daemon=True).start()

    def _fail_for_good(self, fault: FatalError) -> None:
        self._fault = self._fault or fault
        if not self._started.done():
            self._started.set_exception(self._fault)
            self._started.exception()  # marked as seen: perhaps no task awaits it

    def _received(self, frame: bytes) -> None:
        self.silent_looks = 0
        if not self._started.done():
            started = STARTED_JSON.validate_json(frame)
            if started.fault:
                self._fail_for_good(FatalError(ExitCode(started.exit_code), started.fault))
            else:
                self._started.set_result(None)
            return
        match orjson.loads(frame):
            case ["want", int(number), int(byte_length)]:
                self._want(number, byte_length)
            case ["ticks", int(pauses)]:
                if pauses != self._pauses:
                    self._pauses = pauses
                    self._paused()
            case [str(kind), int(number), *facts]:
                self._answered(number, kind, facts)
            case _:
                raise ValueError("not a message")

    def _want(self, number: int, byte_length: int) -> None:
        fetch = self._fetches.get(number)
        if fetch is None:
            return  # cancelled
        if fetch.room.try_resize(byte_length):
            self._grant(number)
        else:
            fetch.waiting = asyncio.create_task(self._wait(number, fetch.room, byte_length))

    async def _wait(self, number: int, room: CountedRoom, byte_length: int) -> None:
        await room.resize(byte_length)
        self._grant(number)

    def _grant(self, number: int) -> None:
        self._frames.send(orjson.dumps(["granted", number]))

    def _give_back(self, lent_bytes: int) -> None:
        """Give bytes back to the window, a quarter of it at once: they need no frame each."""
        self._returned_bytes += lent_bytes
        if self._returned_bytes >= self._window_bytes // 4:
            self._frames.send(orjson.dumps(["window", self._returned_bytes]))
            self._returned_bytes = 0

    def _answered(self, number: int, kind: str, facts: list[Any]) -> None:
        found, lent_bytes = answer_of(self._frames, kind, facts)
        fetch = self._fetches.pop(number, None)
        if fetch is None or fetch.answer.done():
            discard(found)
            self._give_back(lent_bytes)
            return
        fetch.lent_bytes = lent_bytes
        if isinstance(found, Exception):
            fetch.answer.set_exception(found)
        else:
            fetch.answer.set_result(found)


async def _settle(image: SealedImage, room: CountedRoom) -> None:
    """Reserve exactly the bytes that the image takes."""
    try:
        if not room.try_resize(image.byte_length):
            await room.resize(image.byte_length)
    except BaseException:
        image.close()
        raise
