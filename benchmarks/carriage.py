"""One partition's records carried through the consumer's own parts; the broker is a list."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.instant import RESIZES, InstantModel
from consumer.broker.group import MAX_POLL_RECORDS
from consumer.images.prepare import FetchAndDecode
from consumer.images.sources import Sources
from consumer.inference.engine import Engine
from consumer.inference.residency import ResidencyPolicy
from consumer.partition.offsets import OffsetTracker
from consumer.partition.worker import PartitionWorker
from consumer.parts import make_encoder
from consumer.pixels import Resize
from consumer.record.replay_window import ReplayEntry
from consumer.settings import ConsumerSettings
from consumer.telemetry.tracing import untraced
from consumer.worker_maker import WorkerMaker, open_budgets
from imagelane.position import Position
from schemas import (
    ImageReference,
    OutgoingRecord,
    Record,
    Request,
    Signer,
    Task,
    TimestampType,
    encode_request,
)

_SECRET: Final = "a secret of the benchmark alone, 32 bytes long"
_FULL_SECONDS: Final = 0.005  # a full partition is looked at again, as the consumer does


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What `make_encoder` names."""

    embedder: InstantModel
    captioner: InstantModel


class Partition:
    """The broker's part: records from a list, and commits that count their results."""

    def __init__(self, expected: int, results_topic: str) -> None:
        self._expected = expected
        self._results_topic = results_topic
        self.results = 0
        self.done = asyncio.Event()

    async def commit(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        assert all(out.topic == self._results_topic for out in outputs), outputs[-1].headers
        self.results += len(outputs)
        if self.results >= self._expected:
            self.done.set()


def settings_for(folder: Path, port: int) -> ConsumerSettings:
    """Return the defaults, with each scheme opened for what this benchmark serves."""
    return ConsumerSettings.from_env(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
            "SECRET_API_KEY": _SECRET,
            "FILE_ROOTS": str(folder),
            "ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "ALLOWED_NETWORKS": "127.0.0.0/8",
            "S3_BUCKETS": "photos",
            "S3_ENDPOINT": f"http://127.0.0.1:{port}",
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": "key",
            "S3_SECRET_ACCESS_KEY": "secret",
        }
    )


def records_of(settings: ConsumerSettings, uri: str, count: int) -> list[Record]:
    """Return signed records; no two have one id."""
    signer, now, run = (
        Signer(settings.keys, settings.ingest_topic),
        time.time(),
        os.urandom(4).hex(),
    )
    records = []
    for offset in range(count):
        request = Request(id=f"{run}-{offset}", image=ImageReference(uri=uri), tasks=(Task.EMBED,))
        key, value = b"asset-42", encode_request(request)
        signed = signer.sign(id=request.id, timestamp=int(now), key=key, value=value)
        records.append(
            Record(
                topic=settings.ingest_topic,
                partition=0,
                offset=offset,
                timestamp_ms=int(now * 1000),
                timestamp_type=TimestampType.APPEND,
                key=key,
                value=value,
                headers=signed,
            )
        )
    return records


@asynccontextmanager
async def opened_engine(kind: type[Engine], model: InstantModel) -> AsyncIterator[Engine]:
    """Open an engine that serves until the block ends."""
    policy = ResidencyPolicy(host_is_device=True)
    engine = kind(
        model,
        model,
        model,
        embed_batch=32,
        caption_batch=8,
        residency=policy,
        text_residency=policy,
    )
    async with engine:
        serving = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            serving.cancel()


def fetch_and_decode(
    settings: ConsumerSettings,
    sources: Sources,
    decoder: Any,
    resizes: Mapping[Task, Resize] = RESIZES,
) -> FetchAndDecode:
    """Return the consumer's own preparation, with a byte budget of its own."""
    budget, _ = open_budgets(settings)
    return FetchAndDecode(
        sources=sources,
        decoder=decoder,
        resizes=resizes,
        retry=settings.retry_policy,
        budget=budget,
    )


async def carry(
    settings: ConsumerSettings, records: list[Record], preparation: Any, engine: Engine
) -> tuple[float, float]:
    """Return the seconds, by the clock and of CPU, until each record has its result."""
    model = InstantModel()
    partition = Partition(len(records), settings.results_topic)
    _, queries_budget = open_budgets(settings)
    write = make_encoder(settings, Models(embedder=model, captioner=model)).write  # type: ignore[arg-type]
    maker = WorkerMaker(settings, preparation, queries_budget, engine, write, untraced)
    maker.proof.note_history(None)
    worker = maker.make_worker(settings.ingest_topic, OffsetTracker(0), partition.commit)

    async def no_history(recall: object) -> Sequence[ReplayEntry]:
        return ()

    started, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(no_history))
        await feed(worker, records, tasks, partition)
        seconds = time.perf_counter() - started, time.process_time() - cpu
        await worker.close(5)
        await running
    assert partition.results == len(records)
    return seconds


async def feed(
    worker: PartitionWorker, records: list[Record], tasks: asyncio.TaskGroup, partition: Partition
) -> None:
    """Hand records over as there is room, then wait for the last result."""
    for record in records:
        while not worker.capacity:  # noqa: ASYNC110 - as the stream does
            await asyncio.sleep(_FULL_SECONDS)
        worker.take(record, tasks)
        if record.offset % MAX_POLL_RECORDS == 0:
            await asyncio.sleep(0)
    await partition.done.wait()
