"""The consumer's end of a decoding process: start it, ask it, believe nothing, replace it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from consumer.errors import Failed
from consumer.images.decoding.channel import (
    ANSWER,
    ANSWER_JSON,
    MAX_ANSWER_BYTES,
    OPTIONS_JSON,
    QUESTION,
    TARGETS_JSON,
    Picture,
    Verdict,
    WorkerOptions,
)
from consumer.pixels import DecodedImage, Pixels, Resize
from imagelane.exits import ExitCode, FatalError
from schemas import Code, Task

START_SECONDS: Final = 60.0
# One send or receive on the event loop copies at most so much: well under a millisecond. The system
# may allow less.
_SOCKET_BUFFER_BYTES: Final = 1 << 20
_Buffer = TypeVar("_Buffer", bytearray, memoryview)


class Crashed(Exception):
    """The process died at this image, or answered what it may not; a new one is in its place."""


class Worker:
    """A place where images are decoded, one at a time, by one process after the other."""

    _process: subprocess.Popen[bytes]
    _channel: socket.socket
    _is_ready: bool

    def __init__(self, options: WorkerOptions, *, timeout_seconds: float) -> None:
        self._options = options
        self._timeout_seconds = timeout_seconds
        self._fault_code = ExitCode.SETTINGS
        self._ending: set[asyncio.Future[str]] = set()

    def start(self) -> None:
        """Start a process.

        A fresh interpreter, since a fork would inherit torch, threads and secrets. From the thread
        of the event loop, since the process is killed when the thread that started it ends.

        Raises:
            FatalError: the system starts no process.
        """
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        self._is_ready = False
        options = OPTIONS_JSON.dump_json(self._options).decode()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-P", "-m", "consumer.images.decoding.worker", options],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,  # a terminal's Ctrl-C is not for it
                )
            except OSError as exc:
                self._channel.close()
                raise FatalError(
                    ExitCode.DEVICE, f"decoder: no process can be started: {exc.strerror}"
                ) from exc

    async def ready(self) -> None:
        """Wait until the process can decode.

        Raises:
            FatalError: it says that it cannot, or it ended, or it says nothing.
        """
        if self._is_ready:
            return
        try:
            async with asyncio.timeout(START_SECONDS):
                fault = await self._frame()
        except TimeoutError as exc:
            raise FatalError(
                ExitCode.DEVICE, f"decoder: its process is not ready after {START_SECONDS:g} s"
            ) from exc
        except (OSError, EOFError, ValueError) as exc:
            raise FatalError(
                self._fault_code,
                f"decoder: its process {await self._end()} before it was ready; is "
                f"DECODE_MEMORY_BYTES={self._options.memory_bytes} too small?",
            ) from exc
        if fault:
            raise FatalError(self._fault_code, f"decoder: {fault.decode(errors='replace')}")
        self._is_ready = True
        self._fault_code = ExitCode.DEVICE  # the settings did once: what fails now is the machine

    async def decode(self, data: bytes, targets: Mapping[Task, Resize]) -> DecodedImage:
        """Decode `data` for `targets`, as `consumer.images.decoding.image.decode` does.

        Whatever ends this early, a cancellation too, leaves a new process in the old one's place.

        Raises:
            Failed: the image's own fault, or `decoder_crashed`: over the time limit.
            Crashed: the process is gone, or not to be believed.
            FatalError: a new process cannot be started.
        """
        sound = False
        try:
            await self.ready()
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._ask(data, targets)
            sound = True
        except TimeoutError as exc:
            raise Failed(
                Code.DECODER_CRASHED, f"not decoded within {self._timeout_seconds:g} seconds"
            ) from exc
        except ValueError as exc:
            raise Crashed("its process answered what it may not") from exc
        except (OSError, EOFError) as exc:
            raise Crashed(f"its process {await self._end()}") from exc
        finally:
            if not sound:
                self._end()
                self.start()
        if isinstance(answer, Failed):
            raise answer
        return answer

    async def close(self) -> None:
        """Kill the process and wait for it, and for all that were here before."""
        self._end()
        await asyncio.wait(self._ending)

    async def _ask(self, data: bytes, targets: Mapping[Task, Resize]) -> DecodedImage | Failed:
        loop = asyncio.get_running_loop()
        question = TARGETS_JSON.dump_json(targets)
        head = QUESTION.pack(len(question), len(data))
        await loop.sock_sendall(self._channel, head + question)
        await loop.sock_sendall(self._channel, data)
        answer = ANSWER_JSON.validate_json(await self._frame())
        if isinstance(answer, Verdict):
            return Failed(answer.code, answer.message)
        self._check(answer)
        return DecodedImage(
            width=answer.width,
            height=answer.height,
            format=answer.format,
            pixels={task: await self._pixels(to) for task, to in targets.items()},
        )

    def _check(self, picture: Picture) -> None:
        limits = self._options.limits
        if picture.width * picture.height > limits.max_pixels or not limits.allows(picture.format):
            raise ValueError("a picture over the limits")

    async def _frame(self) -> bytearray:
        (length,) = ANSWER.unpack(await self._receive(bytearray(ANSWER.size)))
        if length > MAX_ANSWER_BYTES:
            raise ValueError("an answer over the limit")
        return await self._receive(bytearray(length))

    async def _pixels(self, to: Resize) -> Pixels:
        pixels = np.empty((to.height, to.width, 3), np.uint8)
        await self._receive(pixels.data.cast("B"))
        return pixels

    async def _receive(self, into: _Buffer) -> _Buffer:
        loop, view = asyncio.get_running_loop(), memoryview(into)
        while view:
            received = await loop.sock_recv_into(self._channel, view)
            if not received:
                raise EOFError
            view = view[received:]
        return into

    def _end(self) -> asyncio.Future[str]:
        """Kill the process; the future waits for it and says how it ended, whoever is cancelled."""
        self._process.kill()
        self._channel.close()
        loop = asyncio.get_running_loop()
        ending = loop.run_in_executor(None, _how_it_ended, self._process)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return asyncio.shield(ending)


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    status = process.wait()
    if status >= 0:
        return f"ended with {status}"
    # Real-time signals have no name of their own.
    name = next((each.name for each in signal.Signals if each == -status), f"signal {-status}")
    return f"was killed by {name}"


def _environment() -> dict[str, str]:
    """Return all that the process gets to see of the environment: where the code is, no secret."""
    return {
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        # The processes are what runs side by side; a thread takes address space, too.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
