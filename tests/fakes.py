"""Small classes that stand where Kafka and the models stand, for tests that need neither."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from consumer.errors import Failed
from consumer.images.byte_budget import ByteBudget
from consumer.images.decoding.cost import estimated_seconds
from consumer.images.decoding.pool import Decoder
from consumer.images.sealed import SealedImage
from consumer.images.sources import ImageSource
from consumer.images.sources.http import HttpSource
from consumer.outcome import ImageFacts, Inference
from consumer.pixels import DecodedImage, Pixels, Resize
from consumer.record.dead_letters import DeadLetterRate
from consumer.record.process import Pipeline, Prepared
from consumer.record.replay_window import ReplayWindow
from consumer.record.secret_proof import Refusals, SecretProof
from imagelane.position import Position
from schemas import (
    Code,
    Freshness,
    KeyRing,
    OutgoingRecord,
    Record,
    Request,
    Signer,
    Task,
    TimestampType,
    Verifier,
    encode_request,
)

SECRET = b"correct horse battery staple 0123456789"
KEYS = KeyRing(current_id="k1", secrets={"k1": SECRET})
INGEST, RESULTS, DLQ = "image.ingest", "image.results", "image.ingest.dlq"
NOW = 1_764_000_000


def signed_record(request: Request, offset: int = 0, **changes: Any) -> Record:
    """Return the record of a request as a broker would hand it over, signed and appended at NOW."""
    key, value = changes.pop("key", None), encode_request(request)
    fields: dict[str, Any] = {
        "topic": INGEST,
        "partition": 0,
        "offset": offset,
        "timestamp_ms": NOW * 1000,
        "timestamp_type": TimestampType.APPEND,
        "key": key,
        "value": value,
        "headers": Signer(KEYS, INGEST).sign(id=request.id, timestamp=NOW, key=key, value=value),
    }
    return Record(**(fields | changes))


AnySource = ImageSource | HttpSource[bytes]


async def fetched(source: AnySource, uri: str, max_bytes: int) -> bytes:
    """Return what a source has, with all the memory it may want."""
    async with fetching(source, uri, max_bytes, ByteBudget(2**40)) as data:
        return data


@asynccontextmanager
async def fetching(
    source: AnySource, uri: str, max_bytes: int, budget: ByteBudget
) -> AsyncIterator[bytes]:
    """Return what a source has, reserved from `budget` until the block ends."""
    async with budget.reserve() as reservation:
        yield await source.fetch(uri, max_bytes, reservation)


def content_of(image: SealedImage) -> bytes:
    """Return the bytes of an image, and close it."""
    with image:
        return os.pread(image.descriptor, image.byte_length, 0)


async def decoded(decoder: Decoder, data: bytes, targets: Mapping[Task, Resize]) -> DecodedImage:
    """Return what a decoder makes of `data`, estimated by its own limits."""
    limits = decoder.lanes["decoder"]._workers[0]._options.limits
    with SealedImage.of(data, estimated_seconds(data, limits)) as image:
        return await decoder.decode(image, targets)


class FakeStream:
    """One partition in memory: commits are atomic, and what they wrote is what a reader sees."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)
        self.committed: Position | None = None
        self.outputs: list[OutgoingRecord] = []
        self.commits: list[Position] = []

    async def commit(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        """Apply a transaction at once."""
        await asyncio.sleep(0)
        self.outputs += outputs
        self.committed = position
        self.commits.append(position)

    def read(self) -> list[Record]:
        """Return the records from the committed offset on, as after an assignment."""
        start = self.committed.offset if self.committed else 0
        return [record for record in self.records if record.offset >= start]


FACTS = ImageFacts(sha256="0" * 64, width=2, height=2, format="PNG", fetch_ms=1.0, decode_ms=2.0)


@dataclass
class FakePreparation:
    """Gives a small image, or raises what is set for an id; waits for the events set."""

    faults: Mapping[str, Exception] = field(default_factory=dict)
    waits: Mapping[str, asyncio.Event] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def prepare(self, request: Request) -> AsyncIterator[Prepared]:
        """Satisfy `consumer.record.process.Preparation`."""
        if event := self.waits.get(request.id):
            await event.wait()
        for _ in range(self.turns.get(request.id, 0)):
            await asyncio.sleep(0)
        if fault := self.faults.get(request.id):
            raise fault
        pixels = {task: np.zeros((2, 2, 3), np.uint8) for task in request.tasks}
        yield Prepared(image=FACTS, pixels=pixels)


@dataclass
class FakeInferences:
    """Gives a constant vector and caption, and counts the captions that are expected."""

    expected: int = 0
    most_expected: int = 0
    urgent: int = 0

    @contextmanager
    def expect_caption(self, *, urgent: bool = False) -> Iterator[None]:
        """Satisfy `consumer.record.process.InferenceEngine`."""
        self.expected += 1
        self.most_expected = max(self.most_expected, self.expected)
        try:
            yield
        finally:
            self.expected -= 1

    async def infer(self, pixels: Mapping[Task, Pixels], *, urgent: bool = False) -> Inference:
        """Satisfy `consumer.record.process.InferenceEngine`."""
        await asyncio.sleep(0)
        self.urgent += urgent
        embed, caption = Task.EMBED in pixels, Task.CAPTION in pixels
        return Inference(
            vector=np.array([0.6, 0.8], np.float32) if embed else None,
            caption="a red circle" if caption else None,
            embed_ms=1.0 if embed else None,
            caption_ms=3.0 if caption else None,
        )

    async def infer_text(self, text: str, *, urgent: bool = False) -> Inference:
        """Satisfy `consumer.record.process.InferenceEngine`; a text of `!` alone is too long."""
        await asyncio.sleep(0)
        self.urgent += urgent
        if set(text) == {"!"}:
            raise Failed(Code.TEXT_TOO_LONG, "99 tokens; the model takes 77")
        vector = np.array([0.6, 0.8], np.float32)
        return Inference(vector=vector, caption=None, embed_ms=1.0, caption_ms=None)


def proven() -> SecretProof:
    """Return the proof that our secret is the right one, as after a record that verified."""
    proof = SecretProof()
    proof.note_history(None)
    return proof


def fake_pipeline(**changes: Any) -> Pipeline:
    """Return what a record passes through: real but for the images and the models."""
    fields: dict[str, Any] = {
        "verifier": Verifier(KEYS, INGEST),
        "freshness": Freshness(),
        "proof": proven(),
        "refusals": Refusals(),
        "dead_letter_rate": DeadLetterRate(2**40),
        "replay": ReplayWindow(Freshness()),
        "preparation": FakePreparation(),
        "inferences": FakeInferences(),
        "now": lambda: NOW,
    }
    return Pipeline(**(fields | changes))
