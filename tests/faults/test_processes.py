"""Consumers that die, pause, hang and come back: each record still has exactly one outcome."""

import asyncio
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from imagelane.exits import ExitCode
from tests.containers import ApacheKafka
from tests.faults.scenario import SESSION_SECONDS, names, scale, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]

POINTS = (
    "after_fetch",
    "after_infer",
    "after_produce",
    "after_send_offsets",
    "during_commit",
    "after_commit",
)


async def test_kill_at_random_times(kafka: ApacheKafka, tmp_path: Path) -> None:
    """kill -9 whenever, again and again, while records wait."""
    kills, records = scale(5, 30), scale(500, 5000)
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(records))
        for _ in range(kills):
            consumer = run.start(RECORDS_IN_FLIGHT="32")
            before = await run.lag()
            while before and await run.lag() == before:  # noqa: ASYNC110 - it asks Kafka
                # Some progress, then some time
                await asyncio.sleep(0.05)
            await asyncio.sleep(run.chance.expovariate(5))
            await asyncio.to_thread(consumer.end, signal.SIGKILL)
            if not await run.lag():
                await run.publish([f"more{run.starts}.{n}" for n in range(records // kills)])
        (await run.finish()).check()


@pytest.mark.parametrize("point", POINTS)
async def test_kill_at_named_points(kafka: ApacheKafka, tmp_path: Path, point: str) -> None:
    """kill -9 between any two steps of a record's way."""
    async with scenario(kafka, tmp_path) as run:
        for n in range(scale(1, 5)):
            await run.publish([f"{n}.{name}" for name in names(60)])
            consumer = run.start(FAULT=f"{point}:{run.chance.randint(1, 2)}")
            assert await asyncio.to_thread(consumer.process.wait, 60) == -signal.SIGKILL
        (await run.finish()).check()


@pytest.mark.parametrize("fault", ["lost_commit", "doubtful_commit"])
async def test_commit_that_reports_failure(kafka: ApacheKafka, tmp_path: Path, fault: str) -> None:
    """The commit did not happen, or it did and the answer was lost: both end in one outcome."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(60))
        consumer = run.start(FAULT=f"{fault}:2")
        ledger = await run.finish(consumer)
        ledger.check()
        assert run.starts == 1
        assert consumer.wait_for("commit in doubt")


async def test_position_that_the_broker_lost(kafka: ApacheKafka, tmp_path: Path) -> None:
    """A doubt after which the group's position is behind what was committed: ours holds."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(["before"])
        await run.finish()
        await run.publish(names(60))
        consumer = run.start(FAULT="lost_commit:3", FORGET="yes", RECORDS_IN_FLIGHT="8")
        (await run.finish(consumer)).check()
        assert run.starts == 2
        assert consumer.wait_for("position went back")


async def test_position_that_vanishes(kafka: ApacheKafka, tmp_path: Path) -> None:
    """A doubt after which the group has no position at all: nothing is written on a guess."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(60))
        consumer = run.start(FAULT="lost_commit:3", FORGET="yes", RECORDS_IN_FLIGHT="8")
        assert await asyncio.to_thread(consumer.process.wait, 60) == ExitCode.POSITION
        assert "Traceback" not in consumer.log.read_text()
        (await run.finish()).check()


async def test_orderly_stop_under_load(kafka: ApacheKafka, tmp_path: Path) -> None:
    """SIGTERM: out within ten seconds, and nothing that was finished is done again."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(scale(400, 2000)))
        consumers = []
        for _ in range(scale(1, 5)):
            consumer = run.start(RECORDS_IN_FLIGHT="16")
            consumer.wait_for("record done", count=20)
            start = time.monotonic()
            assert await asyncio.to_thread(consumer.end) == 0
            assert time.monotonic() - start < 10
            consumers.append(consumer)
        last = run.start()
        (await run.finish(last)).check()
        done = Counter(
            event["offset"]
            for consumer in [*consumers, last]
            for event in consumer.events()
            if event["event"] == "record done"
        )
        assert set(done.values()) == {1}


async def test_paused_process_comes_back_as_a_zombie(kafka: ApacheKafka, tmp_path: Path) -> None:
    """SIGSTOP for twice the session, another takes over, SIGCONT: the zombie writes nothing."""
    async with scenario(kafka, tmp_path) as run:
        for n in range(scale(1, 3)):
            await run.publish([f"{n}.{name}" for name in names(300)])
            zombie = run.start(member=f"zombie{n}", RECORDS_IN_FLIGHT="8")
            zombie.wait_for("record done", count=10)
            zombie.process.send_signal(signal.SIGSTOP)
            other = run.start(member=f"other{n}", RECORDS_IN_FLIGHT="8")
            await asyncio.sleep(2 * SESSION_SECONDS)
            other.wait_for("record done")
            zombie.process.send_signal(signal.SIGCONT)
            await run.finish(zombie, other)
        (await run.ledger()).check()


async def test_second_member_comes_and_goes(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Partitions move every few seconds, in the middle of transactions."""
    seconds = scale(20, 120)
    async with scenario(kafka, tmp_path, partitions=2) as run:
        steady = run.start(member="steady", RECORDS_IN_FLIGHT="16")
        until, wave = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            await run.publish([f"{wave}.{name}" for name in names(100)])
            guest = run.start(member=f"guest{wave}", RECORDS_IN_FLIGHT="16")
            await asyncio.sleep(run.chance.uniform(2, 5))
            await asyncio.to_thread(guest.end, run.chance.choice([signal.SIGTERM, signal.SIGKILL]))
            wave += 1
        (await run.finish(steady)).check()


async def test_member_without_a_static_name_is_killed(kafka: ApacheKafka, tmp_path: Path) -> None:
    """The default: the group waits for the session of the dead one, and the next goes on."""
    async with scenario(kafka, tmp_path) as run:
        for n in range(scale(1, 5)):
            await run.publish([f"{n}.{name}" for name in names(60)])
            consumer = run.start(GROUP_INSTANCE_ID="", RECORDS_IN_FLIGHT="8")
            consumer.wait_for("record done", count=8)
            await asyncio.to_thread(consumer.end, signal.SIGKILL)
            (await run.finish(GROUP_INSTANCE_ID="")).check()


async def test_kill_while_a_consumer_starts(kafka: ApacheKafka, tmp_path: Path) -> None:
    """kill -9 between the process's start and its first commit, wherever that hits."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(100))
        first = run.start(RECORDS_IN_FLIGHT="8", FAULT="after_send_offsets:3")
        await asyncio.to_thread(first.process.wait, 60)
        for _ in range(scale(2, 10)):
            consumer = run.start()
            await asyncio.sleep(run.chance.uniform(0.5, 1.8))
            await asyncio.to_thread(consumer.end, signal.SIGKILL)
        (await run.finish()).check()


async def test_event_loop_that_stands_still(kafka: ApacheKafka, tmp_path: Path) -> None:
    """The loop blocks for twice the session: not live, thrown out, back again, once each."""
    async with scenario(kafka, tmp_path) as run:
        for n in range(scale(1, 3)):
            await run.publish([f"{n}.{name}" for name in names(120)])
            blocked = run.start(
                member=f"blocked{n}",
                FAULT="block_loop:30",
                BLOCK_SECONDS=str(2 * SESSION_SECONDS),
                RECORDS_IN_FLIGHT="16",
            )
            await asyncio.sleep(3)
            await run.finish(blocked, run.start(member=f"other{n}", RECORDS_IN_FLIGHT="16"))
            [event] = [line for line in blocked.events() if line["event"] == "not live"]
            assert "the event loop stood still" in str(event["reason"])
        (await run.ledger()).check()


async def test_restart_after_a_kill_is_quick(kafka: ApacheKafka, tmp_path: Path) -> None:
    """With static membership the next result comes within session timeout + 5 s of a kill."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(200))
        consumer = run.start(RECORDS_IN_FLIGHT="8")
        consumer.wait_for("record done", count=20)
        consumer.end(signal.SIGKILL)
        start = time.monotonic()
        again = run.start(RECORDS_IN_FLIGHT="8")
        again.wait_for("record done")
        sys.stdout.write(f"\nkill -9 to next result: {time.monotonic() - start:.1f} s\n")
        (await run.finish(again)).check()


@pytest.mark.parametrize(
    ("variant", "fault"),
    [
        ("commit_before_produce", "after_commit:3"),
        # Not before its first commit: a start without a position finds the results and refuses.
        ("no_transactional_id", "after_produce:4"),
        ("no_seek_after_abort", "lost_commit:2"),
    ],
)
async def test_ledger_finds_a_broken_consumer(
    kafka: ApacheKafka, tmp_path: Path, variant: str, fault: str
) -> None:
    """A test of these tests: each consumer that is broken on purpose turns the ledger red."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(60))
        broken = run.start(VARIANT=variant, FAULT=fault, RECORDS_IN_FLIGHT="8")
        ledger = await run.finish(broken)
        with pytest.raises(AssertionError):
            ledger.check()
        assert ledger.lost or ledger.doubled
