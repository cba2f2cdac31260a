"""One scenario: topics of its own, records in, consumers that are started again when they end."""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from schemas import ImageReference, KeyRing, Request, Signer, Task, encode_request
from tests.conftest import Topics, create_topics
from tests.consumer_process import Running, consumer_process, environment
from tests.faults.ledger import Ledger, lag, read_ledger

SECRET = "a-secret-that-only-the-faults-know-0123456789"
KEYS = KeyRing(current_id="k1", secrets={"k1": SECRET.encode()})
SESSION_SECONDS = 6
FULL = os.environ.get("FAULTS") == "full"
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


full_only = pytest.mark.skipif(not FULL, reason="a figure of `make faults`, not a test of CI")


def scale(ci: int, full: int) -> int:
    """Return how often: in CI, or in `make faults`."""
    return full if FULL else ci


class Kafka(Protocol):
    """A cluster: where it is, and its console tools."""

    bootstrap: str

    def tool(self, name: str, *arguments: str) -> bytes:
        """Run a tool and return what it prints."""


@dataclass(slots=True, kw_only=True)
class Scenario:
    """Where it runs. `bootstrap` is how the consumers reach the broker: a proxy may be between."""

    kafka: Kafka
    topics: Topics
    folder: Path
    bootstrap: str
    partitions: int = 1
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    starts: int = 0

    @property
    def group_id(self) -> str:
        return f"group.{self.topics.ingest}"

    async def publish(
        self,
        names: Sequence[str],
        uri: str = "stub:ok",
        *,
        hang_every: int = 0,
        tasks: tuple[Task, ...] = (Task.EMBED,),
        keys: KeyRing = KEYS,
    ) -> None:
        """Publish signed requests, one an id; each `hang_every`th reference hangs instead."""
        signer = Signer(keys, self.topics.ingest)
        async with AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap,
            enable_idempotence=True,  # a record that is sent again is no repeat
        ) as producer:
            for number, name in enumerate(names):
                hangs = hang_every and number % hang_every == 0
                image = ImageReference(uri="stub:hang" if hangs else uri)
                request = Request(id=name, image=image, tasks=tasks)
                value, key = encode_request(request), name.encode()
                signed = signer.sign(id=name, timestamp=int(time.time()), key=key, value=value)
                await producer.send(self.topics.ingest, key=key, value=value, headers=signed)
            await producer.flush()

    @asynccontextmanager
    async def traffic(self, name: str, records: int = 20) -> AsyncIterator[None]:
        """Publish some records, again and again, until the block ends."""
        ended = asyncio.Event()

        async def publish() -> None:
            wave = 0
            while not ended.is_set():
                await self.publish([f"{name}.{wave}.{n}" for n in range(records)])
                wave += 1
                await asyncio.sleep(0.2)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish())
            try:
                yield
            finally:
                ended.set()

    def settings(self, *, member: str = "one", **changes: str) -> dict[str, str]:
        """Return a consumer's environment; `member` is its static name, so a restart is quick."""
        fixed = {
            "GROUP_ID": self.group_id,
            "GROUP_INSTANCE_ID": member,
            "SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "TRANSACTION_TIMEOUT_SECONDS": "4",
            "BROKER_WAIT_SECONDS": "60",
            "COMMIT_OUTCOMES": "20",
            "FILE_ROOTS": "",
        }
        return environment(self.bootstrap, self.topics, SECRET, **(fixed | changes))

    def start(
        self, *, member: str = "one", module: str = "tests.faults.subject", **changes: str
    ) -> Running:
        """Start a consumer."""
        self.starts += 1
        settings = self.settings(member=member, **changes)
        log = self.folder / f"{self.starts}.{member}.log"
        running = consumer_process(settings, log, module)
        return self.stack.enter_context(running)

    async def lag(self) -> int:
        """Return how many records the group has not committed."""
        return await lag(self.kafka.bootstrap, self.topics.ingest, self.group_id)

    async def finish(self, *running: Running, seconds: float = 120, **changes: str) -> Ledger:
        """Go on, as a supervisor does, until nothing lags; then stop and return the ledger."""
        consumers, deadline = list(running), time.monotonic() + seconds
        while await self.lag():
            assert time.monotonic() < deadline, f"lag {await self.lag()} after {seconds} s"
            consumers = [c for c in consumers if c.process.poll() is None]
            consumers = consumers or [self.start(**changes)]
            await asyncio.sleep(0.3)
        for consumer in consumers:
            if consumer.process.poll() is None:
                await asyncio.to_thread(consumer.end)
        return await self.ledger()

    async def ledger(self) -> Ledger:
        """Read what happened, and say so."""
        listed = await asyncio.to_thread(self.kafka.tool, "kafka-transactions", "list")
        open_ = sum(
            self.topics.ingest in line and ("Ongoing" in line or "Prepare" in line)
            for line in listed.decode().splitlines()
        )
        ledger = await read_ledger(self.kafka.bootstrap, self.topics, self.group_id, open_)
        sys.stdout.write(
            f"\nseed {SEED}: {len(ledger.sent)} sent, {len(ledger.results)} results, "
            f"{len(ledger.letters)} dead letters, {len(ledger.lost)} lost, "
            f"{len(ledger.doubled)} doubled, {self.starts} starts\n"
        )
        return ledger


@asynccontextmanager
async def scenario(
    kafka: Kafka,
    folder: Path,
    *,
    partitions: int = 1,
    replicas: int = 1,
    bootstrap: str | None = None,
) -> AsyncIterator[Scenario]:
    """Make topics; at the end every consumer that still runs is killed."""
    tag = uuid4().hex[:12]
    topics = Topics(ingest=f"ingest.{tag}", results=f"results.{tag}", dlq=f"dlq.{tag}")
    append = {"message.timestamp.type": "LogAppendTime", "compression.type": "uncompressed"}
    await create_topics(
        kafka.bootstrap,
        NewTopic(topics.ingest, partitions, replicas, topic_configs=append),
        NewTopic(topics.results, 1, replicas),
        NewTopic(topics.dlq, 1, replicas),
    )
    made = Scenario(
        kafka=kafka,
        topics=topics,
        folder=folder,
        bootstrap=bootstrap or kafka.bootstrap,
        partitions=partitions,
    )
    async with made.stack:
        yield made


def names(count: int) -> list[str]:
    """Return ids."""
    return [f"r{number}" for number in range(count)]
