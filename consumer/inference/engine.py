"""The device, as record coroutines see it: many ask at once, one thread does one thing at a time.

`run` decides (`batching`, `residency`), hands one step to the GPU thread and awaits it: sequential
by construction, no lock. Only the load of BLIP from disk runs beside it, in a thread of its own,
for it touches host memory alone. Only `run` changes the residency.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, Self, TypeVar

import numpy as np
import structlog

from consumer.errors import Failed
from consumer.inference.batching import BatchSize, Step, next_step
from consumer.inference.errors import DeviceFailed, ModelUnavailable
from consumer.inference.gpu import Answer, GpuThread, ImageQueue, Job
from consumer.inference.ports import Captioner, Embedder
from consumer.inference.residency import Move, Residency, ResidencyPolicy, State
from consumer.outcome import Inference, Vector
from consumer.pixels import Pixels
from schemas import Task

_log = structlog.get_logger()
_PLACE: Final = {Move.OFFLOAD: "host memory", Move.UNLOAD: "disk"}

T = TypeVar("T")


class Engine:
    """One device: CLIP always on it, BLIP when captions ask for it.

    Use it as `async with Engine(...) as engine`, and let a task of its own await `engine.run()`.
    """

    def __init__(
        self,
        embedder: Embedder,
        captioner: Captioner,
        *,
        embed_batch: int,
        caption_batch: int,
        residency: ResidencyPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embedder = embedder
        self._captioner = captioner
        self._embed_size = BatchSize(embed_batch)
        self._embeds: ImageQueue[Vector] = ImageQueue(embedder.embed, self._embed_size)
        self._captions: ImageQueue[str] = ImageQueue(captioner.caption, BatchSize(caption_batch))
        self._residency = Residency(residency)
        self._clock = clock
        self._gpu = GpuThread()
        self._changed = asyncio.Event()
        self._expected_captions = 0
        self._load: asyncio.Task[None] | None = None
        self._load_began_at = 0.0
        self._last: Step | None = None

    async def __aenter__(self) -> Self:
        """Warm CLIP up with a full batch, or the largest that fits.

        Raises:
            DeviceFailed: not even one image fits, or the device failed.
        """
        size = self._embed_size
        while failed_step := await self._gpu.attempt(self._warm_up):
            if not failed_step.out_of_memory or size.limit == 1:
                raise DeviceFailed(f"CLIP's warm-up gave: {failed_step.reason}")
            size.ran_out(size.limit, worked=size.limit // 2)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for the step that is running, and end the GPU thread."""
        await self._gpu.close()

    def _warm_up(self) -> None:
        to = self._embedder.resize
        black = np.zeros((to.height, to.width, 3), np.uint8)
        self._embedder.embed([black] * self._embed_size.limit)

    @contextmanager
    def expect_caption(self) -> Iterator[None]:
        """Say that a caption will be asked for: BLIP begins to load, and stays until the end."""
        self._expected_captions += 1
        self._changed.set()
        try:
            yield
        finally:
            self._expected_captions -= 1
            self._changed.set()

    async def infer(self, pixels: Mapping[Task, Pixels]) -> Inference:
        """Embed and caption one image, whichever of the two `pixels` has an array for.

        Raises:
            Failed: this image fails alone, or BLIP cannot be had.
        """
        embed = self._embeds.put(pixels[Task.EMBED]) if Task.EMBED in pixels else None
        caption = self._captions.put(pixels[Task.CAPTION]) if Task.CAPTION in pixels else None
        self._changed.set()
        try:
            vector = await _answer(embed) if embed else None
            text = await _answer(caption) if caption else None
        finally:
            for job in (embed, caption):
                if job is not None:
                    job.answer.cancel()
        return Inference(
            vector=vector.value if vector else None,
            caption=text.value if text else None,
            embed_ms=vector.batch_ms if vector else None,
            caption_ms=text.batch_ms if text else None,
        )

    async def run(self) -> None:
        """Serve the device until cancelled; what waits then is cancelled too.

        Raises:
            DeviceFailed: the process cannot go on.
        """
        try:
            while True:
                self._changed.clear()
                await self._turn()
        finally:
            self._embeds.cancel()
            self._captions.cancel()
            if self._load is not None:
                self._load.cancel()

    async def _turn(self) -> None:
        """Make one step, or wait until there is one to make."""
        now = self._clock()
        if self._load is not None and self._load.done():
            self._end_load(self._load, now)
        refusal = self._residency.refusal(now)
        if refusal is not None:
            self._captions.fail(refusal)
        wanted = self._expected_captions > 0 or len(self._captions) > 0
        move = self._residency.next_move(now, wanted=wanted)
        if move is Move.LOAD:
            self._begin_load(now)
            move = None
        self._last = next_step(
            embeds=len(self._embeds),
            captions=len(self._captions),
            can_caption=self._residency.state is State.DEVICE,
            can_move=move is not None,
            last=self._last,
        )
        match self._last:
            case Step.EMBED:
                await self._embeds.run_batch(self._gpu, self._clock, self._make_room)
            case Step.CAPTION:
                await self._captions.run_batch(self._gpu, self._clock)
                self._residency.captioned(self._clock())
            case Step.MOVE if move is not None:
                await self._move(move)
            case _:
                await self._wait(self._residency.next_change_at(wanted=wanted), now)

    async def _wait(self, until: float | None, now: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - now)):
                await self._changed.wait()

    def _begin_load(self, now: float) -> None:
        _log.info("blip loading")
        self._residency.loading()
        self._load_began_at = now
        self._load = asyncio.create_task(asyncio.to_thread(self._captioner.load))
        self._load.add_done_callback(lambda _: self._changed.set())

    def _end_load(self, load: "asyncio.Task[None]", now: float) -> None:
        self._load = None
        try:
            load.result()
        except ModelUnavailable as exc:
            self._blip_failed(str(exc))
        else:
            self._residency.loaded(now)
            _log.info("blip loaded", seconds=round(now - self._load_began_at, 3))

    def _blip_failed(self, reason: str) -> None:
        message = f"BLIP cannot be had: {reason}"
        wait = self._residency.failed(self._clock(), message)
        self._captions.fail(message)
        _log.warning("blip load failed", reason=reason, retry_in_seconds=wait)

    async def _move(self, move: Move) -> None:
        if move is Move.TO_DEVICE:
            failed_step = await self._gpu.attempt(self._captioner.to_device)
            if failed_step is None:
                self._residency.on_device(self._clock())
                _log.info("blip on device")
            else:
                await self._gpu.attempt(self._captioner.unload)
                self._blip_failed(failed_step.reason)
            return
        idle_seconds = round(self._residency.idle_seconds(self._clock()), 3)
        await self._leave(move)
        _log.info("blip offloaded", idle_seconds=idle_seconds, to=_PLACE[move])

    async def _leave(self, move: Move) -> None:
        offload = move is Move.OFFLOAD
        step = self._captioner.offload if offload else self._captioner.unload
        failed_step = await self._gpu.attempt(step)
        if failed_step is not None:
            raise DeviceFailed(f"BLIP cannot be taken off it: {failed_step.reason}")
        if offload:
            self._residency.offloaded(self._clock())
        else:
            self._residency.unloaded()

    async def _make_room(self) -> bool:
        """Take BLIP off the device, where CLIP needs the room more."""
        if self._residency.state is not State.DEVICE:
            return False
        await self._leave(self._residency.leaving())
        _log.warning("blip offloaded", reason="out of memory")
        return True


async def _answer(job: Job[T]) -> Answer[T]:
    answer = await job.answer
    if isinstance(answer, Failed):
        raise answer
    return answer
