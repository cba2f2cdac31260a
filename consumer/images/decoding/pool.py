"""The decoding processes. Each image has limits of memory and time.

An image is a program for a decoder. A hostile one can crash its process, hang it or take it over,
and that costs this image alone: the process is killed and replaced. A slow one must not hold back
the others: beside others it waits for the slow lane, whose processes have a low priority.
"""

import asyncio
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final, Self

import structlog

from consumer.errors import Failed
from consumer.images.decoding.channel import WorkerOptions
from consumer.images.decoding.cost import is_costly_for_its_size
from consumer.images.decoding.lane import Lane
from consumer.images.decoding.limits import DEFAULT_MEMORY_BYTES, DecodeLimits
from consumer.images.decoding.process import OutOfTime
from consumer.images.decoding.recent import Arrivals, Digests
from consumer.images.sealed import SealedImage
from consumer.pixels import DecodedImage, Resize
from schemas import Code, Task

log = structlog.get_logger()

_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")  # a container sees its own there
# A photo of 12 megapixels takes 0.08 s as JPEG, 0.16 progressive, 0.2 to 0.45 in other formats.
_SLOW_SECONDS: Final = 0.25
# CPU of a picture that should be quicker; up to 2 s, since the kernel counts whole seconds.
_SLICE_SECONDS: Final = 1
_SLOW_NICENESS: Final = 10  # a tenth of a core beside one that wants all of it
_SLOW_PATIENCE: Final = 30  # times the time limit: by the clock, a low priority takes longer
_MAX_WAITING: Final = 256
_MAX_WAITING_BYTES: Final = 64 << 20


class Decoder:
    """Decodes up to `workers` images at a time, by default one a core that we may use.

    The slow lane is a quarter as many processes more, at least one, at a low priority; they start
    with the first picture that needs them.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        timeout_seconds: float,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        workers: int | None = None,
        images_per_process: int = 0,
    ) -> None:
        limits = replace(limits, memory_bytes=memory_bytes)
        options = WorkerOptions(limits=limits)
        count = workers or usable_cores()
        self._timeout_seconds = timeout_seconds
        self._cpu_seconds = math.ceil(timeout_seconds)
        self._normal = Lane(
            options,
            count=count,
            timeout_seconds=timeout_seconds,
            images_per_process=images_per_process,
        )
        self._slow = Lane(
            replace(options, niceness=_SLOW_NICENESS),
            count=max(1, count // 4),
            timeout_seconds=_SLOW_PATIENCE * timeout_seconds,
            images_per_process=images_per_process,
        )
        self._arrivals = Arrivals()
        self._slow_digests, self._hopeless_digests = Digests(), Digests()

    async def __aenter__(self) -> Self:
        """Start the processes.

        Raises:
            FatalError: they cannot be started, or not with these limits.
        """
        try:
            self._normal.start()
            await self._normal.ready()
        except BaseException:
            await self.__aexit__()
            raise
        if self.lacks:
            log.warning("decoder's cage is not whole", lacks=self.lacks)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._normal.close(), self._slow.close())

    @property
    def lacks(self) -> tuple[str, ...]:
        """The parts of the cage that this machine lacks: `seccomp`, `Landlock`, or none."""
        return self._normal.lacks

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """The lanes by name."""
        return {"decoder": self._normal, "slow_decoder": self._slow}

    async def decode(self, image: SealedImage, targets: Mapping[Task, Resize]) -> DecodedImage:
        """Decode `image` for `targets`, as `consumer.images.decoding.image.decode` does.

        Pictures that took too long are remembered by SHA-256.

        Raises:
            Failed: the image's own fault, or `decoder_crashed`: over the time limit, now or within
                the last ten minutes; too many slow ones wait; or two processes died at it.
            FatalError: a process cannot be replaced.
        """
        digest, seconds = image.sha256, image.decode_seconds
        if self._hopeless_digests.holds(digest, monotonic()):
            raise Failed(Code.DECODER_CRASHED, "its bytes were over the time limit a while ago")
        is_slow = seconds > _SLOW_SECONDS or self._slow_digests.holds(digest, monotonic())
        self._arrivals.add(is_slow=is_slow)
        try:
            if not is_slow:
                try:
                    return await self._normal.decode(
                        image, targets, min(_SLICE_SECONDS, self._cpu_seconds)
                    )
                except OutOfTime as late:
                    if not late.of_cpu:
                        raise
                    log.info("picture outlasts its header", estimated_seconds=round(seconds, 3))
                    self._slow_digests.add(digest, monotonic())
            elif not self._arrivals.are_mixed or (
                self._is_crowded and not is_costly_for_its_size(seconds, image.byte_length)
            ):
                return await self._normal.decode(image, targets, self._cpu_seconds)
            return await self._in_slow_lane(image, targets, is_heavy=is_slow)
        except OutOfTime as late:
            self._hopeless_digests.add(digest, monotonic())
            raise Failed(Code.DECODER_CRASHED, str(late)) from late

    async def _in_slow_lane(
        self, image: SealedImage, targets: Mapping[Task, Resize], *, is_heavy: bool
    ) -> DecodedImage:
        if self._is_crowded:
            raise Failed(
                Code.DECODER_CRASHED,
                f"it takes long to decode, and {self._slow.waiting} that do wait before it",
            )
        self._slow.start()
        return await self._slow.decode(image, targets, self._cpu_seconds, is_heavy=is_heavy)

    @property
    def _is_crowded(self) -> bool:
        """Whether the queue of the slow lane is full."""
        waiting, byte_length = self._slow.waiting, self._slow.waiting_bytes
        return waiting >= _MAX_WAITING or byte_length >= _MAX_WAITING_BYTES


def within_quota(cores: int, cpu_max: str) -> int:
    """Return the number of cores within a container's quota, rounded up.

    `cpu_max` is the text of the file of that name in cgroup v2: quota and period, or `max`.
    """
    quota, _, period = cpu_max.partition(" ")
    return min(cores, math.ceil(int(quota) / int(period))) if quota.isdecimal() else cores


def usable_cores() -> int:
    """Return how many cores this process may use: at least one."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    try:
        return within_quota(cores, _CPU_MAX.read_text(encoding="ascii"))
    except OSError:  # no container, or cgroup v1
        return cores
