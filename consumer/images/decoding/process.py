"""The consumer's end of a decoding process: start it, ask it, validate its answers, replace it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from consumer.errors import Failed
from consumer.images.decoding.channel import (
    ANSWER_JSON,
    MAX_ANSWER_BYTES,
    OPTIONS_JSON,
    QUESTION,
    STARTED_JSON,
    TARGETS_JSON,
    Picture,
    Verdict,
    WorkerOptions,
)
from consumer.images.decoding.confinement import limit_cpu
from consumer.images.decoding.segment import PIXEL_BYTES, Segment, create
from consumer.images.frames import Frames
from consumer.images.sealed import SealedImage
from consumer.pixels import DecodedImage, Resize
from imagelane.exits import ExitCode, FatalError
from schemas import Task

START_SECONDS: Final = 60.0


class DecoderCrashed(Exception):
    """The process died at this image or broke the protocol; it has been replaced."""


class OutOfTime(Exception):
    """The image was over a time limit; its process has been replaced."""

    def __init__(self, seconds: float, *, of_cpu: bool) -> None:
        super().__init__(f"not decoded within {seconds:g} seconds{' of CPU' * of_cpu}")
        self.of_cpu = of_cpu


class Worker:
    """Decodes one image at a time, in a process that is replaced when it fails."""

    _process: subprocess.Popen[bytes]
    _channel: socket.socket
    _frames: Frames
    _segment: Segment
    _answer: asyncio.Future[bytes]  # the next frame
    _is_ready: bool
    _decoded: int  # images, by the current process
    _cpu_limit: int  # seconds of CPU since it started

    def __init__(
        self, options: WorkerOptions, *, timeout_seconds: float, images_per_process: int = 0
    ) -> None:
        self._options = options
        self._timeout_seconds = timeout_seconds
        self._images_per_process = images_per_process  # 0: no bound
        self.is_started = False
        self.lacks: tuple[str, ...] = ()
        self.replaced = 0  # processes
        self._fault_code = ExitCode.SETTINGS
        self._ending: set[asyncio.Future[str]] = set()

    def start(self) -> None:
        """Start a process.

        It is a fresh interpreter: a fork would inherit torch, threads and secrets. Call this from
        the event loop's thread: the process dies with the thread that started it.

        Raises:
            FatalError: the system starts no process.
        """
        self._channel, theirs = socket.socketpair()
        self._answer = asyncio.get_running_loop().create_future()
        self._frames = Frames(
            self._channel, max_bytes=MAX_ANSWER_BYTES, received=self._received, lost=self._lost
        )
        segment = create()
        self._segment = Segment(segment)
        self._is_ready, self._decoded, self._cpu_limit = False, 0, 0
        options = OPTIONS_JSON.dump_json(self._options).decode()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-P", "-m", "consumer.images.decoding.worker", options],
                    stdin=theirs.fileno(),
                    stdout=segment,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,  # a terminal's Ctrl-C is not for it
                )
            except OSError as exc:
                self._frames.close()
                self._segment.close()
                raise FatalError(
                    ExitCode.DEVICE, f"decoder: no process can be started: {exc.strerror}"
                ) from exc
            finally:
                os.close(segment)
        self.is_started = True

    async def ready(self) -> None:
        """Wait until the process can decode.

        Raises:
            FatalError: it cannot, it ended, or it sends nothing.
        """
        if self._is_ready:
            return
        try:
            async with asyncio.timeout(START_SECONDS):
                started = STARTED_JSON.validate_json(await self._next())
        except TimeoutError as exc:
            raise FatalError(
                ExitCode.DEVICE, f"decoder: its process is not ready after {START_SECONDS:g} s"
            ) from exc
        except (OSError, EOFError, ValueError) as exc:
            raise FatalError(
                self._fault_code,
                f"decoder: its process {await self._end()} before it was ready; is "
                f"DECODE_MEMORY_BYTES={self._options.limits.memory_bytes} too small?",
            ) from exc
        if started.fault:
            raise FatalError(self._fault_code, f"decoder: {started.fault}")
        self.lacks = started.lacks
        self._is_ready = True
        self._fault_code = (
            ExitCode.DEVICE
        )  # the settings worked once: a later failure is the machine's

    async def decode(
        self, image: SealedImage, targets: Mapping[Task, Resize], cpu_seconds: int
    ) -> DecodedImage:
        """Decode `image` for `targets`, as `consumer.images.decoding.image.decode` does.

        Any early end, cancellation included, replaces the process.

        Raises:
            Failed: the image's own fault.
            OutOfTime: over the time limit, or over `cpu_seconds`.
            DecoderCrashed: the process died or broke the protocol.
            FatalError: a new process cannot be started, or the targets take more than the segment.
        """
        if sum(to.byte_length for to in targets.values()) > PIXEL_BYTES:
            raise FatalError(
                ExitCode.SETTINGS,
                f"decoder: the models take over {PIXEL_BYTES} bytes of pixels for one image",
            )
        sound = False
        try:
            await self.ready()
            self._cpu_limit = limit_cpu(self._process.pid, cpu_seconds, self._cpu_limit)
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._ask(image, targets)
            sound = True
        except TimeoutError as exc:
            raise OutOfTime(self._timeout_seconds, of_cpu=False) from exc
        except ValueError as exc:
            raise DecoderCrashed("its process answered what it may not") from exc
        except (OSError, EOFError) as exc:
            ended = await self._end()
            if ended.endswith(signal.SIGXCPU.name):
                raise OutOfTime(cpu_seconds, of_cpu=True) from exc
            raise DecoderCrashed(f"its process {ended}") from exc
        finally:
            self._decoded += 1
            if not sound or self._decoded == self._images_per_process:
                self._end()
                self.start()
                self.replaced += 1
        if isinstance(answer, Failed):
            raise answer
        return answer

    async def close(self) -> None:
        """Kill the process, and wait for it and for all that it replaced."""
        self._end()
        await asyncio.wait(self._ending)

    async def _ask(
        self, image: SealedImage, targets: Mapping[Task, Resize]
    ) -> DecodedImage | Failed:
        question = _targets_json(tuple(targets.items()))
        head = QUESTION.pack(len(question), image.byte_length)
        # One call sends all of it: the socket's buffer is empty.
        socket.send_fds(self._channel, [head + question], [image.descriptor])
        answer = ANSWER_JSON.validate_json(await self._next())
        if isinstance(answer, Verdict):
            return Failed(answer.code, answer.message)
        self._check(answer)
        return DecodedImage(
            width=answer.width,
            height=answer.height,
            format=answer.format,
            pixels=self._segment.take_pixels(targets),
        )

    def _check(self, picture: Picture) -> None:
        limits = self._options.limits
        if picture.width * picture.height > limits.max_pixels or not limits.allows(picture.format):
            raise ValueError("a picture over the limits")

    async def _next(self) -> bytes:
        """Return the next frame; one caller at a time.

        Raises:
            EOFError: the process is gone.
        """
        try:
            return await self._answer
        finally:
            self._answer = asyncio.get_running_loop().create_future()

    def _received(self, frame: bytes) -> None:
        if self._answer.done():
            raise ValueError("an answer to nothing")
        self._answer.set_result(frame)

    def _lost(self, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(EOFError(reason))
            self._answer.exception()  # marked as seen: perhaps no task awaits it

    def _end(self) -> asyncio.Future[str]:
        """Kill the process; the future gives how it ended, and survives a cancelled caller."""
        self._process.kill()
        self._frames.close()
        self._segment.close()
        loop = asyncio.get_running_loop()
        ending = loop.run_in_executor(None, _how_it_ended, self._process)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return asyncio.shield(ending)


@lru_cache  # the tasks of a request are few
def _targets_json(targets: tuple[tuple[Task, Resize], ...]) -> bytes:
    return TARGETS_JSON.dump_json(dict(targets))


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    status = process.wait()
    if status >= 0:
        return f"ended with {status}"
    # Real-time signals have no name of their own.
    name = next((each.name for each in signal.Signals if each == -status), f"signal {-status}")
    return f"was killed by {name}"


def _environment() -> dict[str, str]:
    """Return the environment of the process: the path of the code, and no secret."""
    return {
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        # Processes run side by side already, and each thread takes address space.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
