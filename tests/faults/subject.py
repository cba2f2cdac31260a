"""The consumer under test: `python -m tests.faults.subject`, with faults armed by the environment.

Kafka, signatures, admission, decoding, workers and commits are the real ones. The models are stubs
(no torch, so that a start takes a second), and images come from a `stub:` scheme. What kills,
blocks or lies stands here, so that the consumer itself has no hook for tests.

    FAULT=POINT:PASS     kill -9 at the PASSth time a point is reached: after_fetch, after_infer,
                         after_produce, after_send_offsets, during_commit, after_commit
                         or, without a kill: block_loop, lost_commit (not sent, reported as failed),
                         doubtful_commit (done, reported as failed)
                         kill_broker: the broker of BROKER_PID first, when a commit is answered
                         lose_broker: the same without the process, and the answer is lost
    MOVE=WHEN:N,...      the leader of the group's positions moves right before the request for them
                         that comes after N were answered: from the start on (WHEN is `start`), or
                         from the fault on (`doubt`); N,N moves it again before the next try
    BLOCK_SECONDS=T      how long block_loop blocks
    HANG_SECONDS=T       how long a reference that hangs does, 10 unless set
    FORGET=yes           the group's position is always told as it was at the start, as by a broker
                         that lost what was committed since
    STUBS=all            no fetch, no decoding, no engine either: what is left is the transport
    VARIANT=NAME         a consumer that is broken on purpose; see `VARIANTS`
"""

import asyncio
import io
import json
import os
import signal
import sys
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer import group_coordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.transaction import EndTxnRequest
from PIL import Image

from consumer import service
from consumer.broker import transactions
from consumer.broker.cluster import Cluster
from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import Reservation
from consumer.images.prepare import FetchAndDecode
from consumer.images.sealed import SealedImage
from consumer.images.sources import Sources
from consumer.inference.engine import Engine
from consumer.inference.ports import Tokens
from consumer.outcome import ImageFacts, Inference, ModelIdentity
from consumer.pixels import Resize
from consumer.record.process import Prepared
from consumer.runtime.stop import StopRequest
from imagelane.position import Position
from schemas import Code, OutgoingRecord, Task
from tests.faults.leaders import OffsetProbe, leaders
from tests.faults.points import FAULTS

SIZE = Resize(height=8, width=8, resample=3, crop=False)
IDENTITY = ModelIdentity(model="stub", revision="0")
HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "10"))


class _OffsetFetchOfAiokafka(OffsetFetchRequest):
    """Asked by aiokafka's consumer at an assignment, on its own account."""


class StubSource:
    """`stub:ok` is a picture; `stub:hang` takes until its deadline; other names are codes."""

    def __init__(self) -> None:
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(picture, "PNG")
        self._answers = {"ok": picture.getvalue(), "text": b"no picture", "broken": b""}
        self._answers["broken"] = picture.getvalue()[:40]

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
        """Satisfy `consumer.images.sources.SealedSource`."""
        name = uri.removeprefix("stub:").partition("?")[0]
        if FAULTS.reached("block_loop"):
            time.sleep(float(os.environ["BLOCK_SECONDS"]))  # noqa: ASYNC251 - the fault itself
        if name == "hang":
            await asyncio.sleep(HANG_SECONDS)
            raise Failed(Code.IMAGE_UNAVAILABLE, "no answer within the deadline")
        if name == "busy":
            raise Unavailable(Code.IMAGE_UNAVAILABLE, "busy")
        if name not in self._answers:
            raise Failed(Code(name), "as the test asked")  # type: ignore[call-arg]
        FAULTS.kill_at("after_fetch")
        await reservation.resize(len(self._answers[name]))
        return SealedImage.of(self._answers[name])


class StubModel:
    """Both embedders and the captioner in one: a constant vector, a constant caption."""

    identity, resize = IDENTITY, SIZE

    def embed(
        self, images: Sequence[object]
    ) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        return np.full((len(images), 4), 0.5, np.float32)

    def caption(self, images: Sequence[object]) -> list[str]:
        return ["a stub"] * len(images)

    def tokenize(self, text: str) -> Tokens:
        return (len(text),)

    def embed_texts(
        self, texts: Sequence[object]
    ) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        return self.embed(texts)

    def load(self) -> None: ...
    def to_device(self) -> None: ...
    def offload(self) -> None: ...
    def unload(self) -> None: ...


class FaultyProducer(AIOKafkaProducer):
    """The worker's producer, with the points around a transaction."""

    async def send_offsets_to_transaction(self, offsets: object, group_id: str) -> None:
        FAULTS.kill_at("after_produce")
        await super().send_offsets_to_transaction(offsets, group_id)
        FAULTS.kill_at("after_send_offsets")

    async def commit_transaction(self) -> None:
        if FAULTS.reached("lost_commit"):
            raise KafkaError("lost on the way, says the test")
        await super().commit_transaction()
        if FAULTS.reached("doubtful_commit"):
            raise KafkaError("the answer was lost, says the test")
        if FAULTS.reached("lose_broker"):
            os.kill(int(os.environ["BROKER_PID"]), signal.SIGKILL)
            raise KafkaError("the answer was lost with the broker, says the test")
        if FAULTS.reached("kill_broker"):
            os.kill(int(os.environ["BROKER_PID"]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        FAULTS.kill_at("after_commit")


_send = AIOKafkaConnection.send


def _send_and_pass(
    self: AIOKafkaConnection, request: object, expect_response: bool = True
) -> object:
    """Send a request; after EndTxn it is out and unanswered, which is a point to die at."""
    api_key = getattr(request, "API_KEY", None)
    theirs = isinstance(request, (_OffsetFetchOfAiokafka, OffsetProbe))
    if api_key == OffsetFetchRequest.API_KEY and not theirs:
        return _fetch_offsets(self, request)
    answer = _send(self, request, expect_response)
    if isinstance(request, EndTxnRequest):
        FAULTS.kill_at("during_commit")
    return answer


async def _fetch_offsets(self: AIOKafkaConnection, request: object) -> object:
    """Send a request for the group's positions, maybe to what was its coordinator until now."""
    if FAULTS.moves():
        async with leaders(os.environ["BOOTSTRAP_SERVERS"]) as found:
            before, after = await found.move_coordinator(os.environ["GROUP_ID"])
        _log("coordinator moved", before=before, after=after)
    answer = await _send(self, request)
    FAULTS.answered(answer.error_code)
    offsets = [part[1] for _, partitions in answer.topics for part in partitions]
    _log("position answered", error_code=answer.error_code, offsets=offsets)
    return answer


def _log(event: str, **fields: object) -> None:
    sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")


_write = transactions.PartitionTransactions._transaction
_resolve = transactions.PartitionTransactions._resolve


async def _commit_before_produce(
    self: transactions.PartitionTransactions, outputs: Sequence[OutgoingRecord], position: Position
) -> None:
    """Broken: the position is committed, and the outputs come after it."""
    await _write(self, [], position)
    await _write(self, outputs, position)


async def _no_transactional_id(
    self: transactions.PartitionTransactions, outputs: Sequence[OutgoingRecord], position: Position
) -> None:
    """Broken: outputs go out by a producer without a transactional id."""
    async with AIOKafkaProducer(**self._client) as plain:
        for out in outputs:
            await plain.send_and_wait(
                out.topic, key=out.key, value=out.value, headers=list(out.headers)
            )
    FAULTS.kill_at("after_produce")
    await _write(self, [], position)


async def _no_seek_after_abort(
    self: transactions.PartitionTransactions, position: Position
) -> bool:
    """Broken: after a doubt it goes on as if all was well.

    Kafka's own copier seeks back to the committed position after an abort. Ours keeps the outcomes
    and writes them again unless the committed position says that they went through; what is left
    out here is that look.
    """
    await _resolve(self, position)
    return True


VARIANTS = {
    "commit_before_produce": ("_transaction", _commit_before_produce),
    "no_transactional_id": ("_transaction", _no_transactional_id),
    "no_seek_after_abort": ("_resolve", _no_seek_after_abort),
}


def arm() -> None:
    """Put stubs and faults in place of what they stand for."""
    _put_stub_models()
    service.open_sources = lambda settings: nullcontext(  # type: ignore[attr-defined,assignment,return-value]
        Sources(by_scheme={"stub": StubSource()}, max_bytes=settings.max_image_bytes)
    )
    transactions.AIOKafkaProducer = FaultyProducer  # type: ignore[attr-defined]
    AIOKafkaConnection.send = _send_and_pass
    group_coordinator.OffsetFetchRequest = _OffsetFetchOfAiokafka
    infer = Engine.infer

    async def infer_and_pass(self: Engine, pixels: object, *, urgent: bool) -> object:
        inference = await infer(self, pixels, urgent=urgent)  # type: ignore[arg-type]
        FAULTS.kill_at("after_infer")
        return inference

    Engine.infer = infer_and_pass  # type: ignore[method-assign,assignment]
    if os.environ.get("STUBS") == "all":
        _put_instant_images()
    if os.environ.get("FORGET"):
        _put_forgetful_positions()
    if variant := os.environ.get("VARIANT"):
        name, broken = VARIANTS[variant]
        setattr(transactions.PartitionTransactions, name, broken)


def _put_stub_models() -> None:
    stub = types.ModuleType("consumer.inference.models.load")
    models = types.SimpleNamespace(
        embedder=StubModel(),
        captioner=StubModel(),
        text_embedder=StubModel(),
        device="cpu, float32",
        host_is_device=True,
        resizes={Task.EMBED: SIZE, Task.CAPTION: SIZE},
        device_memory=dict,
    )
    stub.ModelOptions = dict  # type: ignore[attr-defined]
    stub.open_models = lambda options: models  # type: ignore[attr-defined]
    sys.modules["consumer.inference.models.load"] = stub


def _put_instant_images() -> None:
    """Neither fetch, nor decode, nor compute."""
    facts = ImageFacts(
        sha256="0" * 64, width=8, height=8, format="PNG", fetch_ms=1.0, decode_ms=1.0
    )
    prepared = Prepared(image=facts, pixels={})
    vector = np.full(4, 0.5, np.float32)
    inference = Inference(vector=vector, caption=None, embed_ms=1.0, caption_ms=None)

    @asynccontextmanager
    async def prepare(self: FetchAndDecode, request: object) -> AsyncIterator[Prepared]:
        yield prepared

    async def infer_nothing(self: Engine, pixels: object, *, urgent: bool) -> Inference:
        return inference

    FetchAndDecode.prepare = prepare  # type: ignore[method-assign]
    Engine.infer = infer_nothing  # type: ignore[method-assign,assignment]


def _put_forgetful_positions() -> None:
    """Answer each read of a position as the first was answered."""
    answers: list[Position | None] = []

    def forgetful(read: Callable[..., Awaitable[Position | None]]) -> Any:
        async def first_answer(*given: object) -> Position | None:
            answers.append(await read(*given))
            return answers[0]

        return first_answer

    owner = transactions.PartitionTransactions
    Cluster.committed = forgetful(Cluster.committed)  # type: ignore[method-assign]
    owner._position_at_coordinator = forgetful(owner._position_at_coordinator)  # type: ignore[method-assign]


if __name__ == "__main__":
    stop = StopRequest()
    stop.listen()
    arm()
    from consumer.command_line import run
    from imagelane.env import read_environment

    run(read_environment(), stop)
