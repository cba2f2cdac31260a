"""The engine with fakes for the models: who gets which answer, and what never happens at once."""

import asyncio
import gc
import threading
import weakref
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import pytest

from consumer.errors import Failed
from consumer.inference.engine import Engine
from consumer.inference.errors import DeviceFailed, DeviceOutOfMemory, ModelUnavailable
from consumer.inference.residency import ResidencyPolicy
from consumer.outcome import ModelIdentity
from consumer.pixels import Resize
from imagelane.exits import ExitCode
from schemas import Code, Task

IDENTITY = ModelIdentity(model="fake", revision="1")
RESIZE = Resize(height=2, width=2, resample=3, crop=False)
BAD, POISON = 255, 254  # the image that does not fit, the image that breaks the device


def image(number: int):
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

    def __enter__(self):
        self.inside += 1
        self.overlapped |= self.inside > 1
        self.threads.add(threading.current_thread().name)

    def __exit__(self, *error):
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
        self.failed_memory: list[weakref.ref] = []
        self.pinned: list[bool] = []

    def embed(self, images):
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


class FakeOnDemand:
    """A model that comes and goes. `faults` are raised by the next loads, in order."""

    identity = IDENTITY
    name = ""

    def __init__(self, device: Device, faults=()) -> None:
        self.device = device
        self.place = "disk"
        self.loads = 0
        self.faults = list(faults)
        self.may_load = threading.Event()
        self.may_load.set()
        self.batches: list[int] = []

    def load(self):
        self.loads += 1
        self.may_load.wait(10)
        if self.faults:
            raise self.faults.pop(0)
        self.place = "host"

    def to_device(self):
        with self.device:
            self.device.steps.append(f"{self.name}to device")
            assert self.place == "host"
            self.place = "device"

    def offload(self):
        with self.device:
            self.device.steps.append(f"{self.name}offload")
            self.place = "host"

    def unload(self):
        with self.device:
            self.device.steps.append(f"{self.name}unload")
            self.place = "disk"


class FakeCaptioner(FakeOnDemand):
    """Captions that hold the image's number."""

    resize = RESIZE

    def caption(self, images):
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

    def __init__(self, device: Device, faults=()) -> None:
        super().__init__(device, faults)
        self.tokenized_in: set[str] = set()

    def tokenize(self, text):
        self.tokenized_in.add(threading.current_thread().name)
        if len(text) > 20:
            raise Failed(Code.TEXT_TOO_LONG, f"{len(text)} tokens; the model takes 20")
        return tuple(text.encode())

    def embed_texts(self, texts):
        with self.device:
            self.device.steps.append(f"text {len(texts)}")
            self.batches.append(len(texts))
            assert self.place == "device"
            return np.array([[len(tokens), -1] for tokens in texts], np.float32)


def engine_of(embedder, captioner, **changes):
    """Return an engine of the fakes."""
    settings = {
        "embed_batch": 8,
        "caption_batch": 4,
        "residency": ResidencyPolicy(),
        "text_residency": ResidencyPolicy(),
    } | changes
    texts = settings.pop("texts", None) or FakeTextEmbedder(captioner.device)
    return Engine(embedder, captioner, texts, **settings)


@asynccontextmanager
async def running(embedder, captioner, **changes):
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


@pytest.fixture
def device():
    """Return the device that both fakes share."""
    return Device()


@pytest.fixture
def captioner(device):
    """Return a BLIP that is not loaded."""
    return FakeCaptioner(device)


@pytest.fixture
def embedder(device, captioner):
    """Return a CLIP with room for everything."""
    fake = FakeEmbedder(device)
    fake.captioner = captioner
    return fake


def embed(engine, number):
    """Ask for the vector of one image."""
    return engine.infer({Task.EMBED: image(number)})


def caption(engine, number):
    """Ask for the caption of one image, as a record does."""

    async def ask():
        with engine.expect_caption():
            return await engine.infer({Task.CAPTION: image(number)})

    return ask()


async def until(condition):
    """Let the other tasks go on until `condition` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in another thread
            await asyncio.sleep(0.001)


async def test_each_image_gets_its_own_answer(embedder, captioner):
    """Vector and caption of one image, from whatever batches they went through."""
    async with running(embedder, captioner) as engine:
        both = [{Task.EMBED: image(n), Task.CAPTION: image(n)} for n in range(20)]

        answers = await asyncio.gather(*map(engine.infer, both))

    for number, answer in enumerate(answers):
        assert answer.vector.tolist() == [number, 1]
        assert answer.caption == f"number {number}"
        assert answer.embed_ms >= 0
        assert answer.caption_ms >= 0


async def test_what_was_not_asked_is_absent(embedder, captioner):
    """An embedding alone has no caption, and never loads BLIP."""
    async with running(embedder, captioner) as engine:
        answer = await embed(engine, 3)

    assert (answer.caption, answer.caption_ms) == (None, None)
    assert captioner.loads == 0


async def test_warm_up_is_a_full_batch(embedder, captioner):
    """CLIP runs a batch of the largest size before the first record."""
    async with running(embedder, captioner, embed_batch=16):
        assert embedder.batches == [16]


async def test_warm_up_finds_the_size_that_fits(device, captioner):
    """A batch too large for the device is halved at start-up, not in service."""
    embedder = FakeEmbedder(device, capacity=5)
    async with running(embedder, captioner, embed_batch=16) as engine:
        await asyncio.gather(*(embed(engine, n) for n in range(9)))

    assert embedder.batches[:3] == [16, 8, 4]
    assert max(embedder.batches[3:]) == 4


async def test_no_room_for_one_image_ends_the_start(device, captioner):
    """A device that cannot hold a single image is reported as the device's fault."""
    with pytest.raises(DeviceFailed) as halt:
        async with running(FakeEmbedder(device, capacity=0), captioner):
            pass

    assert halt.value.code is ExitCode.DEVICE


async def test_two_batches_never_overlap(device, embedder, captioner):
    """Two hundred at once, both kinds, loads and offloads between: one thread, one step."""
    policy = ResidencyPolicy(idle_seconds=0, host_seconds=0)
    async with running(embedder, captioner, residency=policy) as engine:
        for _ in range(3):
            asks = [ask(engine, n) for n in range(100) for ask in (embed, caption)]
            await asyncio.gather(*asks)
            await until(lambda: captioner.place == "disk")

    assert not device.overlapped
    assert len(device.threads) == 1
    assert captioner.loads == 3


async def test_a_hundred_captions_load_blip_once(embedder, captioner):
    """However many ask while it loads, there is one load, and all are answered."""
    captioner.may_load.clear()
    async with running(embedder, captioner) as engine:
        asks = [asyncio.create_task(caption(engine, n)) for n in range(100)]
        await until(lambda: captioner.loads == 1)
        captioner.may_load.set()
        answers = await asyncio.gather(*asks)

    assert captioner.loads == 1
    assert [answer.caption for answer in answers] == [f"number {n}" for n in range(100)]


async def test_load_begins_when_a_caption_is_expected(embedder, captioner):
    """The load hides behind fetch and decode: it needs no image yet."""
    async with running(embedder, captioner) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")


async def test_clip_goes_on_while_blip_loads(embedder, captioner):
    """A load that takes its time holds back no embedding."""
    captioner.may_load.clear()
    async with running(embedder, captioner) as engine:
        ask = asyncio.create_task(caption(engine, 1))
        await until(lambda: captioner.loads == 1)

        answers = [await embed(engine, n) for n in range(5)]

        assert len(answers) == 5
        assert not ask.done()
        captioner.may_load.set()
        await ask


async def test_batches_grow_while_the_device_is_busy(embedder, captioner):
    """What is ready together goes together, up to the limit."""
    async with running(embedder, captioner) as engine:
        await asyncio.gather(*(embed(engine, n) for n in range(20)))

    assert embedder.batches[1:] == [8, 8, 4]


async def test_captions_and_embeddings_take_turns(device, embedder, captioner):
    """With both waiting, each caption slice is followed by an embedding batch."""
    async with running(embedder, captioner, embed_batch=2, caption_batch=2) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            device.steps.clear()
            asks = [ask(engine, n) for n in range(6) for ask in (embed, caption)]
            await asyncio.gather(*asks)

    assert device.steps == ["embed 2", "caption 2"] * 3


async def test_idle_blip_leaves_while_embeddings_go_on(embedder, captioner):
    """Embed-only traffic neither keeps BLIP nor is kept by it."""
    clock = Clock()
    policy = ResidencyPolicy(idle_seconds=300, host_seconds=600)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        await caption(engine, 1)
        for clock.now in (100, 200, 299):
            await embed(engine, 2)
        assert captioner.place == "device"

        clock.now = 300
        await embed(engine, 2)
        await until(lambda: captioner.place == "host")
        await embed(engine, 2)  # answered after the move is on record
        clock.now = 900
        await embed(engine, 2)
        await until(lambda: captioner.place == "disk")


async def test_idle_clock_starts_with_the_last_caption(embedder, captioner):
    """Every caption batch puts the leaving off; embeddings do not."""
    clock = Clock()
    policy = ResidencyPolicy(idle_seconds=300, host_is_device=True)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        for clock.now in (0, 200):
            await caption(engine, 1)
        for clock.now in (300, 499):
            await embed(engine, 2)
            await embed(engine, 2)  # answered after whatever the first one made due
        assert captioner.place == "device"

        clock.now = 500
        await embed(engine, 2)
        await until(lambda: captioner.place == "disk")


async def test_idle_blip_leaves_without_any_traffic(embedder, captioner):
    """Nothing has to happen for the idle bound to be noticed."""
    policy = ResidencyPolicy(idle_seconds=0.01, host_is_device=True)
    async with running(embedder, captioner, residency=policy) as engine:
        await caption(engine, 1)
        await until(lambda: captioner.place == "disk")


async def test_blip_stays_while_a_caption_is_prepared(device, embedder, captioner):
    """A caption whose image is still being fetched holds BLIP beyond the idle bound."""
    clock = Clock()
    policy = ResidencyPolicy(idle_seconds=300, host_is_device=True)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            clock.now = 1000
            await embed(engine, 1)
            await embed(engine, 2)
            assert captioner.place == "device"
        await until(lambda: captioner.place == "disk")


async def test_memory_is_split_down_to_the_image_that_does_not_fit(embedder, captioner):
    """One bad image of eight fails, alone, and its neighbours do not notice."""
    async with running(embedder, captioner) as engine:
        asks = [embed(engine, n) for n in (1, 2, BAD, 4, 5, 6, 7, 8)]
        answers = await asyncio.gather(*asks, return_exceptions=True)

    failed = answers.pop(2)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message) == (Code.INFERENCE_FAILED, "out of memory")
    assert [int(answer.vector[0]) for answer in answers] == [1, 2, 4, 5, 6, 7, 8]
    assert embedder.batches[1:] == [8, 4, 2, 2, 1, 1, 4]


async def test_image_that_breaks_its_batch_fails_alone(embedder, captioner):
    """An error that is not about memory is isolated alike, and says its first line."""
    async with running(embedder, captioner) as engine:
        asks = [caption(engine, n) for n in (1, BAD, 3)]
        answers = await asyncio.gather(*asks, return_exceptions=True)

    assert isinstance(answers[1], Failed)
    assert answers[1].message == "shapes do not match"
    assert [answers[0].caption, answers[2].caption] == ["number 1", "number 3"]


async def test_size_that_worked_is_remembered(device, embedder, captioner):
    """After running out of memory the next batches have the size that worked."""
    async with running(embedder, captioner) as engine:
        embedder.capacity = 3
        await asyncio.gather(*(embed(engine, n) for n in range(8)))
        embedder.batches.clear()
        await asyncio.gather(*(embed(engine, n) for n in range(8)))

    assert embedder.batches == [2, 2, 2, 2]


async def test_blip_makes_room_for_clip(device, embedder, captioner):
    """Before a batch is split, BLIP leaves the device, and then the batch goes through whole."""
    embedder.capacity = 8
    async with running(embedder, captioner) as engine:
        await caption(engine, 1)
        device.steps.clear()

        answers = await asyncio.gather(*(embed(engine, n) for n in range(8)))

    assert len(answers) == 8
    assert device.steps == ["embed 8", "offload", "embed 8"]


async def test_failed_batch_is_released_before_the_retry(embedder, captioner):
    """Nothing holds the failed batch's memory while its halves run, collector or not."""
    gc.disable()
    try:
        async with running(embedder, captioner) as engine:
            asks = [embed(engine, n) for n in (1, BAD)]
            await asyncio.gather(*asks, return_exceptions=True)
    finally:
        gc.enable()

    assert len(embedder.failed_memory) == 2
    assert not any(embedder.pinned)


async def test_failed_load_fails_those_captions_only(embedder, captioner):
    """They say why; CLIP goes on; and later BLIP is loaded again and works."""
    captioner.faults = [ModelUnavailable("blip/model.safetensors is cut short")]
    clock = Clock()
    policy = ResidencyPolicy(first_retry_seconds=5)
    async with running(embedder, captioner, residency=policy, clock=clock) as engine:
        asks = [caption(engine, n) for n in range(3)]
        failed = await asyncio.gather(*asks, return_exceptions=True)
        for failure in failed:
            assert isinstance(failure, Failed)
            assert failure.code is Code.INFERENCE_FAILED
            assert "cut short" in failure.message
        assert (await embed(engine, 7)).vector is not None

        clock.now = 4.9
        with pytest.raises(Failed):
            await caption(engine, 8)
        assert captioner.loads == 1

        clock.now = 5
        answer = await caption(engine, 9)

    assert answer.caption == "number 9"
    assert captioner.loads == 2


async def test_no_room_for_blip_fails_those_captions_only(device, embedder):
    """Running out of memory on the way to the device leaves nothing half-moved."""

    class TooLarge(FakeCaptioner):
        def to_device(self):
            super().to_device()
            raise DeviceOutOfMemory("no room")

    captioner = TooLarge(device)
    async with running(embedder, captioner) as engine:
        with pytest.raises(Failed, match="out of memory"):
            await caption(engine, 1)
        assert captioner.place == "disk"
        assert (await embed(engine, 2)).vector is not None


async def test_device_failure_ends_the_engine(embedder, captioner):
    """An error of the device surfaces from `run`, and nobody waits for ever."""
    async with engine_of(embedder, captioner, embed_batch=1, caption_batch=1) as engine:
        asks = [asyncio.create_task(embed(engine, n)) for n in (POISON, 1, 2)]

        with pytest.raises(DeviceFailed, match="illegal memory access"):
            await engine.run()

        done, pending = await asyncio.wait(asks, timeout=1)
    assert not pending
    assert all(ask.cancelled() for ask in done)


async def test_unforeseen_error_of_a_load_ends_the_engine(embedder, captioner):
    """A bug is not taken for a missing checkpoint."""
    captioner.faults = [ZeroDivisionError("a bug")]
    async with engine_of(embedder, captioner, embed_batch=1, caption_batch=1) as engine:
        ask = asyncio.create_task(caption(engine, 1))

        with pytest.raises(ZeroDivisionError):
            await engine.run()

        await asyncio.wait([ask], timeout=1)
    assert ask.cancelled()


async def test_cancelled_waiters_are_not_run(device, embedder, captioner):
    """A record that went away while it waited takes no place in a batch."""
    captioner.may_load.clear()
    async with running(embedder, captioner) as engine, AsyncExitStack() as expected:
        expected.enter_context(engine.expect_caption())
        gone = [asyncio.create_task(caption(engine, n)) for n in range(3)]
        stays = asyncio.create_task(caption(engine, 9))
        await until(lambda: captioner.loads == 1)
        for ask in gone:
            ask.cancel()
        await asyncio.wait(gone)
        captioner.may_load.set()
        answer = await stays

    assert answer.caption == "number 9"
    assert captioner.batches == [1]


async def test_each_text_gets_its_own_vector(embedder, captioner):
    """Texts that wait together go together, each to its own answer; BLIP is not asked."""
    texts = FakeTextEmbedder(embedder.device)
    async with running(embedder, captioner, texts=texts) as engine:
        answers = await asyncio.gather(*(engine.infer_text("x" * n) for n in range(1, 20)))

    assert [answer.vector.tolist() for answer in answers] == [[n, -1] for n in range(1, 20)]
    assert {(answer.caption, answer.caption_ms) for answer in answers} == {(None, None)}
    assert sum(texts.batches) == 19
    assert max(texts.batches) <= 8
    assert (texts.loads, captioner.loads) == (1, 0)


async def test_text_is_tokenised_off_the_event_loop(embedder, captioner):
    """4,096 characters take milliseconds, which the loop has for nobody."""
    texts = FakeTextEmbedder(embedder.device)
    async with running(embedder, captioner, texts=texts) as engine:
        await engine.infer_text("a")

    assert threading.main_thread().name not in texts.tokenized_in


async def test_text_that_is_too_long_fails_and_loads_nothing(embedder, captioner):
    """It never waits for the device, so a flood of them costs no memory there."""
    texts = FakeTextEmbedder(embedder.device)
    async with running(embedder, captioner, texts=texts) as engine:
        with pytest.raises(Failed) as failure:
            await engine.infer_text("x" * 21)

    assert failure.value.code is Code.TEXT_TOO_LONG
    assert texts.loads == 0


async def test_text_tower_leaves_by_its_own_clock(embedder, captioner):
    """As BLIP does: neither pictures nor captions keep it, and the next text brings it back."""
    clock, texts = Clock(), FakeTextEmbedder(embedder.device)
    async with running(
        embedder,
        captioner,
        texts=texts,
        residency=ResidencyPolicy(idle_seconds=None),
        text_residency=ResidencyPolicy(idle_seconds=60, host_seconds=600),
        clock=clock,
    ) as engine:
        await engine.infer_text("a")
        await caption(engine, 1)
        assert (texts.place, captioner.place) == ("device", "device")

        clock.now = 60
        await embed(engine, 2)
        await until(lambda: texts.place == "host")
        await embed(engine, 2)  # answered after the move is on record
        clock.now = 660
        await embed(engine, 2)
        await until(lambda: texts.place == "disk")
        assert captioner.place == "device"

        await engine.infer_text("a")
    assert texts.loads == 2


async def test_failed_load_of_the_text_tower_fails_texts_only(embedder, captioner):
    """They say which model it is; pictures and captions go on."""
    fault = ModelUnavailable("clip/model.safetensors is cut short")
    texts = FakeTextEmbedder(embedder.device, faults=[fault])
    async with running(embedder, captioner, texts=texts) as engine:
        with pytest.raises(Failed, match=r"CLIP text cannot be had: .* is cut short"):
            await engine.infer_text("a")

        assert (await embed(engine, 7)).vector is not None
        assert (await caption(engine, 8)).caption == "number 8"


async def test_urgent_text_goes_before_all_that_waits(device, embedder, captioner):
    """Pictures and captions that came before it have the device after it."""
    texts = FakeTextEmbedder(device)
    async with running(embedder, captioner, texts=texts, embed_batch=1) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            await engine.infer_text("a")
            device.steps.clear()
            embedder.may_embed.clear()
            asks = [
                asyncio.create_task(ask(engine, n)) for n in range(6) for ask in (embed, caption)
            ]
            await until(lambda: device.inside)
            asks.append(asyncio.create_task(engine.infer_text("a", urgent=True)))
            await until(lambda: len(engine._texts.queue))
            embedder.may_embed.set()
            await asyncio.gather(*asks)

    held, first = device.steps[:2]
    assert (held, first) == ("embed 1", "text 1")


async def test_urgent_picture_goes_first_and_by_itself(device, embedder, captioner):
    """It overtakes those that wait for the same model, and its batch is not filled with them."""
    async with running(embedder, captioner, embed_batch=4) as engine:
        asks = [asyncio.create_task(embed(engine, n)) for n in range(12)]
        asks.append(asyncio.create_task(engine.infer({Task.EMBED: image(99)}, urgent=True)))
        answers = await asyncio.gather(*asks)

    assert embedder.batches[1:] == [1, 4, 4, 4]
    assert [int(answer.vector[0]) for answer in answers] == [*range(12), 99]


async def test_idle_models_make_room_for_each_other(device, embedder, captioner):
    """A text tower that finds no room takes BLIP's, since nobody wants BLIP."""

    class Tight(FakeTextEmbedder):
        def to_device(self):
            super().to_device()
            if captioner.place == "device":
                raise DeviceOutOfMemory("no room")

    texts = Tight(device)
    async with running(embedder, captioner, texts=texts) as engine:
        await caption(engine, 1)
        answer = await engine.infer_text("abc")

    assert answer.vector.tolist() == [3, -1]
    assert captioner.place == "host"


async def test_a_wanted_model_is_not_driven_out(device, embedder, captioner):
    """Two that do not fit together would chase each other for ever: the second one fails."""

    class Tight(FakeTextEmbedder):
        def to_device(self):
            super().to_device()
            if captioner.place == "device":
                raise DeviceOutOfMemory("no room")

    async with running(embedder, captioner, texts=Tight(device)) as engine:
        with engine.expect_caption():
            await until(lambda: captioner.place == "device")
            with pytest.raises(Failed, match="out of memory"):
                await engine.infer_text("abc")
            assert captioner.place == "device"
