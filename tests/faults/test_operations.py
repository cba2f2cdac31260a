"""What an operator does, under load: rotate, add a GPU, upgrade, lose a node. `make operations`.

Every record has its one outcome and none is refused; how long it took is written, beside what was
promised, and is not asserted.
"""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from producer.settings import StatusSettings
from producer.status import Fault, PartitionStatus
from producer.status_reader import read_status
from schemas import KeyRing
from tests.consumer_process import Running
from tests.containers import ApacheKafka
from tests.faults.ledger import Ledger
from tests.faults.scenario import (
    KEYS,
    SECRET,
    SESSION_SECONDS,
    Scenario,
    full_only,
    scale,
    scenario,
)

pytestmark = [pytest.mark.integration, pytest.mark.docker]

NEW_SECRET = "the-secret-that-comes-after-the-first-0123456789"
NEW_KEYS = KeyRing(current_id="k2", secrets={"k2": NEW_SECRET.encode()})
WAVE = 20
PAUSE_SECONDS = 0.1
ADDED_SECONDS = 30
TAKEOVER_SECONDS = 10


@dataclass(slots=True)
class Load:
    """Records that are published all the time, signed with the keys of the moment."""

    keys: KeyRing = KEYS
    count: int = 0
    published: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, count: int) -> None:
        """Wait until so many are published."""
        async with self.published:
            await self.published.wait_for(lambda: self.count >= count)


@asynccontextmanager
async def load(run: Scenario) -> AsyncIterator[Load]:
    """Publish some two hundred records a second until the block ends."""
    made, ended = Load(), asyncio.Event()

    async def publish() -> None:
        while not ended.is_set():
            names = [f"r{made.count + n}" for n in range(WAVE)]
            await run.publish(names, keys=made.keys)
            async with made.published:
                made.count += WAVE
                made.published.notify_all()
            await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish())
        try:
            yield made
        finally:
            ended.set()


async def restarted(run: Scenario, old: Running, member: str, **changes: str) -> Running:
    """Stop one consumer in order, start the next by its name, and wait until it is at work."""
    assert await asyncio.to_thread(old.end) == 0
    new = run.start(member=member, **changes)
    await at_work(new)
    return new


async def at_work(*consumers: Running, **fields: object) -> None:
    """Wait until each has committed a record."""
    for consumer in consumers:
        await asyncio.to_thread(consumer.wait_for, "record done", 1, **fields)


async def checked(run: Scenario, consumers: Sequence[Running], **changes: Any) -> Ledger:
    ledger = await run.finish(*consumers, **changes)
    ledger.check()
    assert not ledger.refused
    return ledger


async def everything_so_far_is_done(run: Scenario, traffic: Load) -> None:
    """Wait until the group has passed what is published now, a wave that is under way included."""
    await traffic.until(traffic.count + 2 * WAVE)
    ends = {one.partition: one.end for one in await partitions_of(run)}

    while any((one.position or 0) < ends[one.partition] for one in await partitions_of(run)):
        await traffic.until(traffic.count + WAVE)


async def partitions_of(run: Scenario) -> Sequence[PartitionStatus]:
    """Return what `imagelane status` tells of the partitions."""
    status = await read_status(StatusSettings.from_env(run.settings()), since=time.time())
    assert not isinstance(status.partitions, Fault), status.partitions
    return status.partitions


def tell(what: str, seconds: float, promised: float | None = None) -> None:
    """Write a figure."""
    held = "" if promised is None else f", promised {promised:g} s"
    missed = "" if promised is None or seconds <= promised else ": NOT HELD"
    sys.stdout.write(f"\noperations: {what}: {seconds:.1f} s{held}{missed}\n")


async def test_rotation_of_the_secret_refuses_no_good_record(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    """Consumers learn the new key, producers sign with it, consumers sign, the old one goes."""
    old, new = f"k1:{SECRET}", f"k2:{NEW_SECRET}"
    learn = {"SECRET_API_KEYS_PREVIOUS": new}
    sign = {
        "SECRET_API_KEY": NEW_SECRET,
        "SECRET_API_KEY_ID": "k2",
        "SECRET_API_KEYS_PREVIOUS": old,
    }
    forget = {"SECRET_API_KEY": NEW_SECRET, "SECRET_API_KEY_ID": "k2"}
    async with scenario(kafka, tmp_path, partitions=2) as run:
        async with load(run) as traffic:
            members = {name: run.start(member=name) for name in ("gpu-0", "gpu-1")}
            await at_work(*members.values())
            start = time.monotonic()
            for settings in (learn, sign):
                for name, consumer in members.items():
                    members[name] = await restarted(run, consumer, name, **settings)
                # Producers follow once every consumer knows the key.
                traffic.keys = NEW_KEYS
            await everything_so_far_is_done(run, traffic)
            for name, consumer in members.items():
                members[name] = await restarted(run, consumer, name, **forget)
            tell(f"rotation, {traffic.count} records meanwhile", time.monotonic() - start)
        await checked(run, list(members.values()), **forget)


async def test_rotation_in_the_wrong_order_is_found(kafka: ApacheKafka, tmp_path: Path) -> None:
    """A test of the one above: producers that sign before consumers know the key are refused."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(["first"])
        consumer = run.start()
        await at_work(consumer)
        await run.publish(["early"], keys=NEW_KEYS)
        ledger = await run.finish(consumer)
        assert ledger.refused == {"early": 1}


async def test_gpu_is_added(kafka: ApacheKafka, tmp_path: Path) -> None:
    """A partition and a process for it: from the first command to its first committed record."""
    for n in range(scale(1, 3)):
        folder = tmp_path / str(n)
        folder.mkdir()
        async with scenario(kafka, folder) as run:
            async with load(run):
                first = run.start(member="gpu-0")
                await at_work(first)
                start = time.monotonic()
                alter = ["--alter", "--topic", run.topics.ingest, "--partitions", "2"]
                await asyncio.to_thread(kafka.tool, "kafka-topics", *alter)
                second = run.start(member="gpu-1")
                await at_work(second)
                tell("a GPU added, in work after", time.monotonic() - start, ADDED_SECONDS)
                await at_work(first, second)
            await checked(run, [first, second])


async def test_rolling_upgrade_of_two(kafka: ApacheKafka, tmp_path: Path) -> None:
    """One after the other is replaced, again and again, and nothing is lost or done twice."""
    async with scenario(kafka, tmp_path, partitions=2) as run:
        async with load(run) as traffic:
            members = {name: run.start(member=name) for name in ("gpu-0", "gpu-1")}
            await at_work(*members.values())
            start = time.monotonic()
            for _ in range(scale(1, 5)):
                for name, consumer in members.items():
                    members[name] = await restarted(run, consumer, name)
            count = 2 * scale(1, 5)
            tell(
                f"rolling upgrade, {count} replacements, {traffic.count} records meanwhile, "
                "each in work again after",
                (time.monotonic() - start) / count,
            )
        await checked(run, list(members.values()))


@pytest.mark.parametrize("session_seconds", [SESSION_SECONDS, pytest.param(30, marks=full_only)])
async def test_node_is_lost(kafka: ApacheKafka, tmp_path: Path, session_seconds: int) -> None:
    """A process that vanishes without a word: the survivor goes on with its partition."""
    timeouts = {
        "SESSION_TIMEOUT_SECONDS": str(session_seconds),
        "TRANSACTION_TIMEOUT_SECONDS": str(session_seconds // 2),
    }
    for n in range(scale(1, 3)):
        folder = tmp_path / str(n)
        folder.mkdir()
        async with scenario(kafka, folder, partitions=2) as run:
            async with load(run):
                lost = run.start(member="gpu-0", **timeouts)
                await at_work(lost)
                survivor = run.start(member="gpu-1", **timeouts)
                await at_work(survivor)  # with one partition: the other one has had both
                [theirs] = {0, 1} - {partition_of(survivor)}
                # A machine without power closes no connection; neither does one that stands still.
                lost.process.send_signal(signal.SIGSTOP)
                start = time.monotonic()
                await at_work(survivor, partition=theirs)
                tell(
                    f"a node lost, session timeout {session_seconds} s, taken over after",
                    time.monotonic() - start,
                    session_seconds + TAKEOVER_SECONDS,
                )
                lost.process.kill()
            await checked(run, [survivor], **timeouts)


def partition_of(consumer: Running) -> int:
    """Return the partition that it did a record of last."""
    done = [event for event in consumer.events() if event["event"] == "record done"]
    return int(str(done[-1]["partition"]))
