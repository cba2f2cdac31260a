"""Models that stand where CLIP and BLIP stand, and an engine of them."""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Failed
from consumer.inference.engine import Engine
from consumer.inference.errors import DeviceFailed, DeviceOutOfMemory
from consumer.inference.ports import Tokens
from consumer.inference.residency import ResidencyPolicy
from consumer.outcome import Inference, ModelIdentity
from consumer.pixels import Pixels, Resize
from schemas import Code, Task

IDENTITY = ModelIdentity(model="fake", revision="1")
RESIZE = Resize(height=2, width=2, resample=3, crop=False)
BAD, POISON = 255, 254  # the image that does not fit, the image that breaks the device


def image(number: int) -> Pixels:
    """Return an image that the fakes know again by its first pixel."""
    return np.full((2, 2, 3), number, np.uint8)


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Device:
    """Notes every step, and whether two were ever inside at once."""

    inside: int = 0
    overlapped: bool = False
    steps: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def __enter__(self) -> None:
        self.inside += 1
        self.overlapped |= self.inside > 1
        self.threads.add(threading.current_thread().name)

    def __exit__(self, *error: object) -> None:
        self.inside -= 1


class FakeEmbedder:
    """Vectors that hold the image's number; room for `capacity` images, fewer beside BLIP."""

    identity, resize = IDENTITY, RESIZE

    def __init__(self, device: Device, capacity: int = 1000) -> None:
        self.device = device
        self.capacity = capacity
        self.may_embed = threading.Event()
        self.may_embed.set()
        self.captioner: FakeCaptioner | None = None
        self.batches: list[int] = []
        self.failed_memory: list[weakref.ref[NDArray[np.float64]]] = []
        self.pinned: list[bool] = []

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        with self.device:
            self.may_embed.wait(10)
            self.device.steps.append(f"embed {len(images)}")
            self.batches.append(len(images))
            self.pinned.append(any(memory() is not None for memory in self.failed_memory))
            numbers = [int(pixels[0, 0, 0]) for pixels in images]
            beside_blip = self.captioner is not None and self.captioner.place == "device"
            memory = np.zeros(len(images))
            if POISON in numbers:
                raise DeviceFailed("an illegal memory access")
            if len(images) > self.capacity // (2 if beside_blip else 1) or BAD in numbers:
                self.failed_memory.append(weakref.ref(memory))
                raise DeviceOutOfMemory("no room")
            return np.array([[number, 1] for number in numbers], np.float32)


class TimedEmbedder(FakeEmbedder):
    """Takes `seconds_of` a batch of so many images, by the clock of the test."""

    def __init__(
        self,
        device: Device,
        clock: Clock,
        seconds_of: Callable[[int], float],
        capacity: int = 1000,
    ) -> None:
        super().__init__(device, capacity)
        self.clock, self.seconds_of = clock, seconds_of

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        self.clock.now += self.seconds_of(len(images))
        return super().embed(images)


class FakeOnDemand:
    """A model that comes and goes. `faults` are raised by the next loads, in order."""

    identity = IDENTITY
    name = ""

    def __init__(self, device: Device, faults: Iterable[Exception] = ()) -> None:
        self.device = device
        self.place = "disk"
        self.loads = 0
        self.faults = list(faults)
        self.may_load = threading.Event()
        self.may_load.set()
        self.batches: list[int] = []

    def load(self) -> None:
        self.loads += 1
        self.may_load.wait(10)
        if self.faults:
            raise self.faults.pop(0)
        self.place = "host"

    def to_device(self) -> None:
        with self.device:
            self.device.steps.append(f"{self.name}to device")
            assert self.place == "host"
            self.place = "device"

    def offload(self) -> None:
        with self.device:
            self.device.steps.append(f"{self.name}offload")
            self.place = "host"

    def unload(self) -> None:
        with self.device:
            self.device.steps.append(f"{self.name}unload")
            self.place = "disk"


class FakeCaptioner(FakeOnDemand):
    """Captions that hold the image's number."""

    resize = RESIZE

    def caption(self, images: Sequence[Pixels]) -> list[str]:
        with self.device:
            self.device.steps.append(f"caption {len(images)}")
            self.batches.append(len(images))
            assert self.place == "device"
            numbers = [int(pixels[0, 0, 0]) for pixels in images]
            if BAD in numbers:
                raise RuntimeError("shapes do not match\nand much more text")
            return [f"number {number}" for number in numbers]


class FakeTextEmbedder(FakeOnDemand):
    """Vectors that hold the text's length and -1; a text over 20 characters is too long."""

    name = "text "

    def __init__(self, device: Device, faults: Iterable[Exception] = ()) -> None:
        super().__init__(device, faults)
        self.tokenized_in: set[str] = set()

    def tokenize(self, text: str) -> Tokens:
        self.tokenized_in.add(threading.current_thread().name)
        if len(text) > 20:
            raise Failed(Code.TEXT_TOO_LONG, f"{len(text)} tokens; the model takes 20")
        return tuple(text.encode())

    def embed_texts(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        with self.device:
            self.device.steps.append(f"text {len(texts)}")
            self.batches.append(len(texts))
            assert self.place == "device"
            return np.array([[len(tokens), -1] for tokens in texts], np.float32)


def engine_of(embedder: FakeEmbedder, captioner: FakeCaptioner, **changes: Any) -> Engine:
    """Return an engine of the fakes."""
    settings: dict[str, Any] = {
        "embed_batch": 8,
        "caption_batch": 4,
        "residency": ResidencyPolicy(),
        "text_residency": ResidencyPolicy(),
    } | changes
    texts = settings.pop("texts", None) or FakeTextEmbedder(captioner.device)
    return Engine(embedder, captioner, texts, **settings)


@asynccontextmanager
async def running(
    embedder: FakeEmbedder, captioner: FakeCaptioner, **changes: Any
) -> AsyncIterator[Engine]:
    """Yield an engine that runs, and end it."""
    async with engine_of(embedder, captioner, **changes) as engine:
        task = asyncio.create_task(engine.run())
        try:
            async with asyncio.timeout(60):
                yield engine
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def embed(engine: Engine, number: int) -> Coroutine[Any, Any, Inference]:
    """Ask for the vector of one image."""
    return engine.infer({Task.EMBED: image(number)})


def caption(engine: Engine, number: int) -> Coroutine[Any, Any, Inference]:
    """Ask for the caption of one image, as a record does."""

    async def ask() -> Inference:
        with engine.expect_caption():
            return await engine.infer({Task.CAPTION: image(number)})

    return ask()


async def until(condition: Callable[[], object]) -> None:
    """Let the other tasks go on until `condition` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in another thread
            await asyncio.sleep(0.001)
