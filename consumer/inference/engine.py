"""One device for many callers: record coroutines queue jobs, one thread runs one step at a time.

`run` picks a step (`batching`, `residency`), hands it to the GPU thread and awaits it: the device
needs no lock. While full batches of images wait, the thread has the next one in its queue. A load
from disk runs beside it in its own thread, for it touches host memory alone.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Final, Self

import numpy as np
import structlog

from consumer.errors import Failed
from consumer.inference.batches_ahead import BatchesAhead
from consumer.inference.batching import BatchSize, ShortSteps, StepOrder, best_batch
from consumer.inference.errors import DeviceFailed, ModelUnavailable
from consumer.inference.gpu import GpuThread, JobQueue, MakeRoom, StepFailed
from consumer.inference.on_demand import DeviceContext, OnDemandModel
from consumer.inference.ports import Captioner, Embedder, TextEmbedder, Tokens
from consumer.inference.residency import ResidencyPolicy
from consumer.outcome import Inference, Vector
from consumer.pixels import Pixels
from schemas import Code, Task

_log = structlog.get_logger()
_RESIDENT: Final = "CLIP"
MEASURED_BATCHES: Final = (8, 16, 32, 64, 128, 256)
_LEAST_SECONDS: Final = 1e-6  # a coarse clock may show no time for a step


class Engine:
    """One device. CLIP's image tower stays on it; its text tower and BLIP are loaded on demand.

    Use it as `async with Engine(...) as engine`, and let a task of its own await `engine.run()`.
    """

    def __init__(
        self,
        embedder: Embedder,
        captioner: Captioner,
        text_embedder: TextEmbedder,
        *,
        embed_batch: int | None,
        caption_batch: int,
        residency: ResidencyPolicy,
        text_residency: ResidencyPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the engine; with `embed_batch` None `async with` measures the best batch."""
        self._is_measured = embed_batch is None
        embed_batch = embed_batch or MEASURED_BATCHES[0]
        self._embedder = embedder
        self._captioner = captioner
        self._tokenize = text_embedder.tokenize
        self._tokenizer_thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._context = DeviceContext(gpu=GpuThread(), clock=clock, changed=asyncio.Event())
        self._images: JobQueue[Pixels, Vector] = JobQueue(embedder.embed, BatchSize(embed_batch))
        self._texts: OnDemandModel[Tokens, Vector] = OnDemandModel(
            "CLIP text",
            text_embedder,
            JobQueue(text_embedder.embed_texts, BatchSize(embed_batch)),
            text_residency,
            self._context,
        )
        self._captions: OnDemandModel[Pixels, str] = OnDemandModel(
            "BLIP",
            captioner,
            JobQueue(captioner.caption, BatchSize(caption_batch)),
            residency,
            self._context,
        )
        on_demand: list[OnDemandModel[Any, Any]] = [self._texts, self._captions]
        self.on_demand = {model.name: model for model in on_demand}
        self.queues: Mapping[str, JobQueue[Any, Any]] = {
            _RESIDENT: self._images,
            **{model.name: model.queue for model in on_demand},
        }
        self._step_order = StepOrder()
        self._short_steps = ShortSteps()
        self._ahead = BatchesAhead()  # of images
        self._making_room = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Warm CLIP up with a full batch, or the largest that fits.

        Raises:
            DeviceFailed: not even one image fits, or the device failed.
            ModelUnavailable: CLIP takes no image of the size that its own processor makes.
        """
        if self._is_measured:
            await self._choose_batch()
        size = self._images.size
        while failed_step := await self._context.gpu.attempt(self._warm_up):
            if not failed_step.out_of_memory:
                raise self._unfit(failed_step)
            if size.limit == 1:
                raise DeviceFailed(f"CLIP's warm-up gave: {failed_step.reason}")
            size.ran_out(size.limit, worked=size.limit // 2)
        return self

    async def _choose_batch(self) -> None:
        """Measure batches of images, and take the smallest that is nearly the fastest."""
        rates: dict[int, float] = {}
        for batch in MEASURED_BATCHES:
            seconds = await self._context.gpu.attempt(partial(self._seconds_of, batch))
            if isinstance(seconds, StepFailed):
                _log.info("embed batch does not work", images=batch, reason=seconds.reason)
                break  # a model that never works fails its warm-up
            rates[batch] = batch / seconds
        if rates:
            batch = best_batch(rates)
            self._images.size = BatchSize(batch)
            self._texts.queue.size = BatchSize(batch)
            _log.info("embed batch", images=batch, images_per_second=round(rates[batch]))

    def _seconds_of(self, batch: int) -> float:
        """Return the seconds of a step of `batch` images: the best of three, after a warm-up."""
        seconds = []
        for _ in range(4):
            began = self._context.clock()
            self._embedder.embed([self._black()] * batch)
            seconds.append(self._context.clock() - began)
        return max(min(seconds[1:]), _LEAST_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        """Wait for the running step, and end the threads."""
        self._tokenizer_thread.shutdown(wait=False, cancel_futures=True)
        await self._context.gpu.close()

    def _warm_up(self) -> None:
        self._embedder.embed([self._black()] * self._images.size.limit)

    def _unfit(self, failed_step: StepFailed) -> ModelUnavailable:
        model = self._embedder.identity.model
        return ModelUnavailable(f"{model} fails on a sound picture: {failed_step.reason}")

    def _black(self) -> Pixels:
        to = self._embedder.resize
        return np.zeros((to.height, to.width, 3), np.uint8)

    async def probe(self, pixels: Mapping[Task, Pixels], text: str) -> tuple[int, str | None]:
        """Embed and caption a picture and embed a text before `run`, and unload the models again.

        Returns:
            The length of a vector, and the caption; None if BLIP does not fit on the device.

        Raises:
            ModelUnavailable: a model cannot be loaded, fails, or gives an empty caption.
        """
        vectors = await self._context.gpu.attempt(
            lambda: list(self._images.forward([pixels[Task.EMBED]]))
        )
        if isinstance(vectors, StepFailed):
            raise self._unfit(vectors)
        numbers = len(vectors[0])
        words = await self._texts.try_once(self._tokenize(text))
        if words is not None and len(words) != numbers:
            model = self._embedder.identity.model
            raise ModelUnavailable(
                f"{model}: its texts have {len(words)} numbers, its pictures {numbers}"
            )
        caption = await self._captions.try_once(pixels[Task.CAPTION])
        if caption == "":
            raise ModelUnavailable(
                f"{self._captioner.identity.model} says nothing of a picture: is it made for "
                "captions, and are its tokenizer's files its own?"
            )
        return numbers, caption

    def expect_caption(self, *, urgent: bool = False) -> AbstractContextManager[None]:
        """Announce a caption: BLIP begins to load, and stays until the block ends."""
        return self._captions.expect(urgent=urgent)

    async def infer(self, pixels: Mapping[Task, Pixels], *, urgent: bool = False) -> Inference:
        """Run each task of one image that `pixels` has an array for.

        Raises:
            Failed: the model fails on this image alone or gives no caption, or BLIP is unavailable.
        """
        embed = caption = None
        if Task.EMBED in pixels:
            embed = self._images.put(pixels[Task.EMBED], urgent=urgent)
        if Task.CAPTION in pixels:
            caption = self._captions.queue.put(pixels[Task.CAPTION], urgent=urgent)
        self._context.changed.set()
        try:
            vector = await embed.result() if embed else None
            text = await caption.result() if caption else None
            if text is not None and not text.value:
                raise Failed(Code.INFERENCE_FAILED, "the captioner said nothing of this image")
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

    async def infer_text(self, text: str, *, urgent: bool = False) -> Inference:
        """Embed one text, into the space of the images.

        Raises:
            Failed: the text has too many tokens, the model fails on it alone, or is unavailable.
        """
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._tokenizer_thread, self._tokenize, text)
        job = self._texts.queue.put(tokens, urgent=urgent)
        self._context.changed.set()
        try:
            vector = await job.result()
        finally:
            job.answer.cancel()
        return Inference(
            vector=vector.value, caption=None, embed_ms=vector.batch_ms, caption_ms=None
        )

    async def run(self) -> None:
        """Serve the device until cancelled; the waiting jobs are cancelled too.

        Raises:
            DeviceFailed: the process cannot go on.
        """
        try:
            while True:
                self._context.changed.clear()
                await self._step()
        finally:
            await self._ahead.cancel()
            self._images.cancel()
            for model in self.on_demand.values():
                model.cancel()

    async def _step(self) -> None:
        """Run one step, or wait until a model has one."""
        now = self._context.clock()
        for model in self.on_demand.values():
            model.refresh(now)
        ready = {_RESIDENT: self._images.urgent} if self._images else {}
        ready |= {name: model.urgent for name, model in self.on_demand.items() if model.ready}
        choice = self._step_order.choose(ready)
        if any(ready.values()):
            self._short_steps.urgent(now)
        most_seconds = self._short_steps.bound(now)
        if choice == _RESIDENT:
            is_alone = len(ready) == 1 and most_seconds is None
            await self._ahead.advance(
                partial(
                    self._images.start_batch,
                    *(self._context.gpu, self._context.clock, self._room_for(None), most_seconds),
                ),
                # A long batch gains nothing by it, and an urgent job would wait for two.
                lambda: is_alone and self._images.has_full_batch and self._images.size.is_short,
            )
        elif choice is not None:
            await self._ahead.finish()
            model = self.on_demand[choice]
            await model.step(self._room_for(model), most_seconds)
        elif self._ahead:
            await self._ahead.finish()
        else:
            await self._wait(now)

    async def _wait(self, now: float) -> None:
        changes = [model.next_change_at() for model in self.on_demand.values()]
        until = min((at for at in changes if at is not None), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - now)):
                await self._context.changed.wait()

    def _room_for(self, asking: OnDemandModel[Any, Any] | None) -> MakeRoom:
        """Return the function that takes one other model off the device.

        CLIP's image tower (None) displaces any model. A model on demand displaces unwanted ones
        only: two wanted models that do not fit together would displace each other for ever.
        """

        async def make_room() -> bool:
            if self._making_room.locked():  # for the batch beside this one: try again after it
                async with self._making_room:
                    return True
            async with self._making_room:
                for model in self.on_demand.values():
                    spared = model is asking or (asking is not None and model.wanted)
                    if model.on_device and not spared:
                        await model.leave()
                        _log.warning(f"{model.name.lower()} offloaded", reason="out of memory")
                        return True
                return False

        return make_room
