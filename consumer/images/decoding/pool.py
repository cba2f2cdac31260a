"""Where decoding runs: in processes of their own, each image with limits of memory and time.

An image is a program for a decoder. What a hostile one can do to its process (crash it, hang it,
take it over) costs that image alone: the process is killed and another one takes its place.
"""

import asyncio
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import structlog

from consumer.errors import Failed
from consumer.images.decoding.channel import WorkerOptions
from consumer.images.decoding.limits import DEFAULT_MEMORY_BYTES, DecodeLimits
from consumer.images.decoding.process import Crashed, Worker
from consumer.pixels import DecodedImage, Resize
from schemas import Code, Task

log = structlog.get_logger()

_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")  # a container sees its own there


class Decoder:
    """Decodes up to `workers` images at a time, by default one a core that we may use."""

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        timeout_seconds: float,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        workers: int | None = None,
        images_per_process: int = 0,
    ) -> None:
        self._options = WorkerOptions(
            limits=limits, memory_bytes=memory_bytes, cpu_seconds=math.ceil(timeout_seconds)
        )
        self._timeout_seconds = timeout_seconds
        self._images_per_process = images_per_process  # 0: no bound
        self._count = workers or _cores()
        self._workers: list[Worker] = []
        # The last one that was used is the next: its memory is warm, and some may stay asleep.
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()

    async def __aenter__(self) -> Self:
        """Start the processes.

        Raises:
            FatalError: they cannot be started, or not with these limits.
        """
        try:
            for _ in range(self._count):
                worker = Worker(
                    self._options,
                    timeout_seconds=self._timeout_seconds,
                    images_per_process=self._images_per_process,
                )
                worker.start()
                self._workers.append(worker)
                self._idle.put_nowait(worker)
            for worker in self._workers:
                await worker.ready()
        except BaseException:
            await self.__aexit__()
            raise
        if self.lacks:
            log.warning("decoder's cage is not whole", lacks=self.lacks)
        return self

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this machine lacks for a whole cage: `seccomp`, `Landlock`, or nothing."""
        return self._workers[0].lacks

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def decode(self, data: bytes, targets: Mapping[Task, Resize]) -> DecodedImage:
        """Decode `data` for `targets`, as `consumer.images.decoding.image.decode` does.

        The time limit counts from the moment a process is free. An image whose process dies gets
        one more, since it may have died of something else: of what the image before it left
        behind, or because the system was out of memory.

        Raises:
            Failed: the image's own fault, or `decoder_crashed`: over the time limit, or it took
                two processes with it.
            FatalError: a process cannot be replaced.
        """
        worker = await self._idle.get()
        try:
            try:
                return await worker.decode(data, targets)
            except Crashed as crash:
                log.warning("decoder replaced", reason=str(crash))
            return await worker.decode(data, targets)
        except Crashed as crash:
            failed = Failed(Code.DECODER_CRASHED, f"the decoder crashed twice: {crash}")
            failed.attempts = 2
            raise failed from crash
        finally:
            self._idle.put_nowait(worker)


def within_quota(cores: int, cpu_max: str) -> int:
    """Return how many of the cores a container's quota leaves, a part of one counted as one.

    `cpu_max` is the text of the file of that name in cgroup v2: quota and period, or `max`.
    """
    quota, _, period = cpu_max.partition(" ")
    return min(cores, math.ceil(int(quota) / int(period))) if quota.isdecimal() else cores


def _cores() -> int:
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    try:
        return within_quota(cores, _CPU_MAX.read_text(encoding="ascii"))
    except OSError:  # no container, or cgroup v1
        return cores
