"""A lane: decoding processes of one priority, each with one picture at a time."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext

import structlog

from consumer.errors import Failed
from consumer.images.decoding.channel import WorkerOptions
from consumer.images.decoding.process import DecoderCrashed, Worker
from consumer.images.sealed import SealedImage
from consumer.pixels import DecodedImage, Resize
from schemas import Code, Task

log = structlog.get_logger()


class Lane:
    """Decodes up to `count` pictures at a time. Its processes start with `start`."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        count: int,
        timeout_seconds: float,
        images_per_process: int = 0,
    ) -> None:
        self._workers = [
            Worker(options, timeout_seconds=timeout_seconds, images_per_process=images_per_process)
            for _ in range(count)
        ]
        # Last in, first out: the warm process goes first, and the others may sleep.
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        self._turn_of_heavy = asyncio.Lock()
        self._is_started = False
        self.waiting = 0  # pictures that wait for a process
        self.waiting_bytes = 0

    @property
    def lacks(self) -> tuple[str, ...]:
        """The parts of the cage that this machine lacks."""
        return self._workers[0].lacks

    @property
    def replaced(self) -> int:
        """The number of replaced processes."""
        return sum(worker.replaced for worker in self._workers)

    def start(self) -> None:
        """Start the processes, if they are not there.

        Raises:
            FatalError: the system starts no process.
        """
        if self._is_started:
            return
        self._is_started = True
        for worker in self._workers:
            worker.start()
            self._idle.put_nowait(worker)

    async def ready(self) -> None:
        """Wait until all of them can decode.

        Raises:
            FatalError: they cannot be started, or not with these limits.
        """
        for worker in self._workers:
            await worker.ready()

    async def close(self) -> None:
        """Kill the processes and wait for them."""
        await asyncio.gather(*(worker.close() for worker in self._workers if worker.is_started))

    async def decode(
        self,
        image: SealedImage,
        targets: Mapping[Task, Resize],
        cpu_seconds: int,
        *,
        is_heavy: bool = False,
    ) -> DecodedImage:
        """Decode `image` when a process is free; the time limits count from then on.

        One heavy picture at a time waits for a process, and the other heavy ones behind it: so a
        light one waits for at most one of them.

        An image whose process dies gets a second one: the cause may have been the image before it,
        or a system out of memory.

        Raises:
            Failed: the image's own fault, or `decoder_crashed`: two processes died at it.
            OutOfTime: over `cpu_seconds`, or over the time limit.
            FatalError: a process cannot be replaced.
        """
        worker = await self._free(image.byte_length, is_heavy=is_heavy)
        try:
            try:
                return await worker.decode(image, targets, cpu_seconds)
            except DecoderCrashed as crash:
                log.warning("decoder replaced", reason=str(crash))
            return await worker.decode(image, targets, cpu_seconds)
        except DecoderCrashed as crash:
            failed = Failed(Code.DECODER_CRASHED, f"the decoder crashed twice: {crash}")
            failed.attempts = 2
            raise failed from crash
        finally:
            # Not at once: the pictures that wait go before a heavy one whose turn just came.
            asyncio.get_running_loop().call_soon(self._idle.put_nowait, worker)

    async def _free(self, byte_length: int, *, is_heavy: bool) -> Worker:
        self.waiting += 1
        self.waiting_bytes += byte_length
        try:
            async with self._turn_of_heavy if is_heavy else nullcontext():
                return await self._idle.get()
        finally:
            self.waiting -= 1
            self.waiting_bytes -= byte_length
