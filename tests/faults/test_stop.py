"""Asked to stop, whatever it is doing: in order within STOP_SECONDS + 2, or not at all by itself.

That an exit code is 0 says that it was in time: beyond that the process ends itself, with 74.
"""

import array
import asyncio
import fcntl
import os
import random
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from imagelane.exits import ExitCode
from schemas import Task
from tests.consumer_process import PATIENCE_SECONDS, Running, own_environment
from tests.containers import ApacheKafka
from tests.faults.scenario import SEED, names, scale, scenario
from tests.processes import child_workers, is_gone

pytestmark = [pytest.mark.integration, pytest.mark.docker]

HANGING = "tests.faults.hanging"
KILLED_BY_TERM, INTERRUPTED = 128 + signal.SIGTERM, 128 + signal.SIGINT


async def _end(consumer: Running, number: int = signal.SIGTERM) -> int:
    """Ask a consumer to stop, and return its exit code; its decoders are gone with it."""
    decoders = child_workers(consumer.process.pid)
    code = await asyncio.to_thread(consumer.end, number)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(is_gone(pid) for pid in decoders):  # noqa: ASYNC110 - /proc tells nobody
            await asyncio.sleep(0.05)
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_while_models_are_loaded(kafka: ApacheKafka, tmp_path: Path, number: int) -> None:
    """Nothing is in flight: the process ends at once, as the signal says, without a traceback."""
    async with scenario(kafka, tmp_path) as run:
        consumer = run.start(module=HANGING, HANG="models")
        consumer.wait_for("models hang")
        assert await _end(consumer, number) == 128 + number
        assert "Traceback" not in consumer.log.read_text()


async def test_while_the_group_is_joined(kafka: ApacheKafka, tmp_path: Path) -> None:
    """The broker keeps the answer back, for the others to rejoin, and one of those stands still."""
    async with scenario(kafka, tmp_path) as run:
        paused = run.start(member="paused", GROUP_INSTANCE_ID="")
        paused.wait_for("partition assigned")
        paused.process.send_signal(signal.SIGSTOP)
        joining = run.start(member="joining", GROUP_INSTANCE_ID="", STOP_SECONDS="1")
        joining.wait_for("ready")
        assert await _end(joining) == ExitCode.OK
        assert not [e for e in joining.events() if e["event"] == "partition assigned"]
        paused.process.send_signal(signal.SIGCONT)
        assert await _end(paused) == ExitCode.OK


async def test_while_a_history_is_read(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Nothing is in flight, so there is nothing to wait for, however long the history is."""
    async with scenario(kafka, tmp_path) as run:
        consumer = run.start(module=HANGING, HANG="history", STOP_SECONDS="300")
        consumer.wait_for("history hangs")
        assert await _end(consumer) == ExitCode.OK


async def test_while_images_hang(kafka: ApacheKafka, tmp_path: Path) -> None:
    """What is not finished within STOP_SECONDS is given up, and done by the next owner."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(["slow"], uri="stub:hang")
        await run.publish(names(20))
        consumer = run.start(STOP_SECONDS="1")
        consumer.wait_for("record done", count=20)
        assert await _end(consumer) == ExitCode.OK
        (await run.finish()).check()


async def test_while_a_transaction_is_ended(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Its outcomes are not done again."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(100))
        consumer = run.start(module=HANGING, ASK="commit", RECORDS_IN_FLIGHT="8")
        assert await asyncio.to_thread(consumer.process.wait, PATIENCE_SECONDS) == ExitCode.OK
        last = run.start()
        (await run.finish(last)).check()
        done = [e["offset"] for c in (consumer, last) for e in c.events() if "outcome" in e]
        assert set(Counter(done).values()) == {1}


async def test_while_the_loops_own_pipe_is_full(kafka: ApacheKafka, tmp_path: Path) -> None:
    """A signal that asyncio would lose: it wakes the loop by the pipe that threads wake it by."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(100))
        consumer = run.start(module=HANGING, ASK="flood", RECORDS_IN_FLIGHT="8")
        assert await asyncio.to_thread(consumer.process.wait, PATIENCE_SECONDS) == ExitCode.OK
        (await run.finish()).check()


@pytest.mark.parametrize("hang", ["gpu", "blip"])
async def test_while_a_thread_is_busy(kafka: ApacheKafka, tmp_path: Path, hang: str) -> None:
    """Neither a step of the GPU nor a load of BLIP is waited for beyond the bound."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(5), tasks=(Task.EMBED, Task.CAPTION))
        consumer = run.start(module=HANGING, HANG=hang, STOP_SECONDS="1")
        consumer.wait_for("gpu step hangs" if hang == "gpu" else "blip hangs")
        assert await _end(consumer) == ExitCode.OK
        (await run.finish()).check()


async def test_twice(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Who does not want to wait asks again: the process ends at once, and nothing is lost."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(["slow"], uri="stub:hang")
        await run.publish(names(20))
        consumer = run.start(STOP_SECONDS="3600", RETRY_MAX_AGE_SECONDS="3600")
        consumer.wait_for("record done", count=20)
        consumer.process.send_signal(signal.SIGINT)
        consumer.wait_for("stopping")
        assert await _end(consumer) == KILLED_BY_TERM
        (await run.finish()).check()


async def test_while_nobody_reads_the_log(kafka: ApacheKafka, tmp_path: Path) -> None:
    """A process that cannot write another line ends itself, and its code says so."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(200))
        reading, writing = os.pipe()
        room = fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
        command = [sys.executable, "-m", "tests.faults.subject"]
        env = own_environment(run.settings(STOP_SECONDS="1", COMMIT_OUTCOMES="1"))
        with subprocess.Popen(command, cwd="/", env=env, stderr=writing) as process:  # noqa: ASYNC220
            os.close(writing)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while _waiting_bytes(reading) < room - 512:  # noqa: ASYNC110 - a line is about 300
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, PATIENCE_SECONDS)
            os.close(reading)
        assert code == ExitCode.STUCK
        (await run.finish()).check()


def _waiting_bytes(pipe: int) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0]


async def test_loop_that_never_turns_ends_the_process(kafka: ApacheKafka, tmp_path: Path) -> None:
    """By a thread of its own, with the exit code of the table and the stacks of all threads."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(30))
        short = {"SESSION_TIMEOUT_SECONDS": "2", "TRANSACTION_TIMEOUT_SECONDS": "1"}
        consumer = run.start(module=HANGING, HANG="loop", STUCK_SECONDS="1", **short)
        code = await asyncio.to_thread(consumer.process.wait, PATIENCE_SECONDS)
        assert code == ExitCode.STUCK
        said = consumer.log.read_text()
        assert "the event loop stood still" in said
        assert "_hang" in said


async def test_loop_in_native_code_ends_the_process(kafka: ApacheKafka, tmp_path: Path) -> None:
    """No thread of Python's runs any more; what is left can end it with 1 alone."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(30))
        short = {"SESSION_TIMEOUT_SECONDS": "2", "TRANSACTION_TIMEOUT_SECONDS": "1"}
        consumer = run.start(module=HANGING, HANG="native", STUCK_SECONDS="1", **short)
        assert await asyncio.to_thread(consumer.process.wait, PATIENCE_SECONDS) == ExitCode.FAILED
        assert "Timeout" in consumer.log.read_text()


async def test_history_that_never_ends_is_not_live(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Nothing is in flight, and nothing will be."""
    async with scenario(kafka, tmp_path) as run:
        consumer = run.start(
            module=HANGING, HANG="history", PROGRESS_SECONDS="1", STUCK_SECONDS="1"
        )
        code = await asyncio.to_thread(consumer.process.wait, PATIENCE_SECONDS)
        assert code == ExitCode.STUCK
        assert "no record of its history" in consumer.log.read_text()


async def test_transaction_that_somebody_left_open(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Nothing behind it can be read: said, and not ready, and alive; once it ends all is done."""
    async with scenario(kafka, tmp_path) as run:
        alive = tmp_path / "alive"
        consumer = run.start(OPEN_TRANSACTION_SECONDS="1", ALIVE_FILE=str(alive))
        consumer.wait_for("partition assigned")
        stranger = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap, transactional_id=f"of.{run.topics.ingest}"
        )
        async with stranger:
            await stranger.begin_transaction()
            await stranger.send_and_wait(run.topics.ingest, b"never ended")
            await run.publish(names(20))
            [line] = await asyncio.to_thread(consumer.wait_for, "not ready")
            assert line["level"] == "error"
            assert line["cause"] == f"transaction:{run.topics.ingest}-0"
            assert "from 0 on" in str(line["reason"])
            looked_at = time.time()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while alive.stat().st_mtime < looked_at:  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.1)
            assert consumer.process.poll() is None
            await stranger.abort_transaction()
        await run.publish(["last"])  # behind the marker of the abort, which counts as lag otherwise
        await asyncio.to_thread(consumer.wait_for, "record done", 21)
        await asyncio.to_thread(consumer.wait_for, "no longer blocked")
        (await run.finish(consumer)).check()


@pytest.mark.parametrize("part", range(scale(1, 5)))
async def test_at_random_moments(kafka: ApacheKafka, tmp_path: Path, part: int) -> None:
    """SIGTERM whenever, from the first line of the code on: obeyed each time, nothing twice."""
    chance, ends = random.Random(SEED + part), Counter[str]()
    longest = 0.0
    async with scenario(kafka, tmp_path) as run:
        for n in range(scale(3, 20)):
            await run.publish([f"{n}.{name}" for name in names(100)])
            consumer = run.start(STOP_SECONDS="3", RECORDS_IN_FLIGHT="16", COMMIT_OUTCOMES="5")
            await asyncio.to_thread(_wait_until_it_listens, consumer.process)
            await asyncio.sleep(chance.uniform(0, 4))
            start = time.monotonic()
            code = await _end(consumer)
            longest = max(longest, time.monotonic() - start)
            events = [str(event["event"]) for event in consumer.events()]
            # The handler of the signal may come between taking signals in order and saying so.
            assert code == ExitCode.OK or (code, "ready" in events) == (KILLED_BY_TERM, False)
            assert "Traceback" not in consumer.log.read_text()
            ends[f"{code} after {_stage(events)}"] += 1
        sys.stdout.write(f"\nSIGTERM: {dict(ends)}, longest {longest:.1f} s\n")
        (await run.finish()).check()


def _stage(events: list[str]) -> str:
    """Return how far a consumer came."""
    stages = ("record done", "partition assigned", "ready", "topics")
    return next((stage for stage in stages if stage in events), "imports")


def _wait_until_it_listens(process: "subprocess.Popen[bytes]") -> None:
    """Block until the process handles SIGTERM, which Python by itself does not."""
    bit = 1 << (signal.SIGTERM - 1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.partition("SigCgt:")[2].split()[0], 16) & bit:
            return
        time.sleep(0.001)
    raise AssertionError("the process takes no signals")
