"""Three brokers: one that dies, leaders that move, restarts in turn, and consumers that die too."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.consumer_process import PATIENCE_SECONDS, Running
from tests.faults.cluster import NODES, ThreeBrokers
from tests.faults.leaders import OFFSETS, TRANSACTIONS, leaders
from tests.faults.scenario import Scenario, full_only, names, scale, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]

REPLICAS = len(NODES)
# A busy machine takes seconds to move a leader, and that is in the time for an answer.
WORKING = {
    "RECORDS_IN_FLIGHT": "8",
    "SESSION_TIMEOUT_SECONDS": "15",
    "TRANSACTION_TIMEOUT_SECONDS": "10",
}
PATIENT = {"SESSION_TIMEOUT_SECONDS": "30", "TRANSACTION_TIMEOUT_SECONDS": "20"}
alone_and_with_consumers = pytest.mark.parametrize(
    "dies",
    [
        pytest.param(False, id="alone", marks=full_only),
        pytest.param(True, id="with the consumer"),
    ],
)


@pytest.mark.parametrize(
    "moves", ["0,1", pytest.param("0", marks=full_only), pytest.param("0,0,1", marks=full_only)]
)
async def test_coordinator_moves_before_a_worker_reads_its_position(
    three: ThreeBrokers, tmp_path: Path, moves: str
) -> None:
    """The broker asked is no more, or not yet, the coordinator: its error is no position."""
    async with scenario(three, tmp_path, replicas=REPLICAS) as run:
        await run.publish(names(300))
        (await run.finish(run.start())).check()
        for n in range(scale(1, 3)):
            consumer = run.start(MOVE=f"start:{moves}", **PATIENT)
            await asyncio.to_thread(consumer.wait_for, "partition assigned")
            order = [event["event"] for event in consumer.events()]
            before = order[: order.index("partition assigned")]
            assert before.count("coordinator moved") == len(moves.split(","))
            await run.publish([f"more{n}.{name}" for name in names(20)])
            (await run.finish(consumer)).check()


@pytest.mark.parametrize(
    ("fault", "moves"),
    [
        ("doubtful_commit", "0,0"),
        pytest.param("doubtful_commit", "0", marks=full_only),
        pytest.param("lost_commit", "0,1", marks=full_only),
    ],
)
async def test_coordinator_moves_while_a_commit_is_in_doubt(
    three: ThreeBrokers, tmp_path: Path, fault: str, moves: str
) -> None:
    """The commit went through or not, its answer is lost, and the coordinator has moved."""
    async with scenario(three, tmp_path, replicas=REPLICAS) as run:
        for n in range(scale(1, 10)):
            await run.publish([f"{n}.{name}" for name in names(60)])
            consumer = run.start(
                FAULT=f"{fault}:2",
                MOVE=f"doubt:{moves}",
                RECORDS_IN_FLIGHT="8",
                **PATIENT,
            )
            await asyncio.to_thread(consumer.wait_for, "coordinator moved", len(moves.split(",")))
            (await run.finish(consumer)).check()


@full_only
@alone_and_with_consumers
async def test_one_broker_after_the_other_is_killed(
    three: ThreeBrokers, tmp_path: Path, dies: bool
) -> None:
    """kill -9 of a broker in the middle of the work; the other two go on."""
    async with scenario(three, tmp_path, replicas=REPLICAS) as run:
        consumer = None
        for n in range(6):
            consumer = await _at_work(run, consumer)
            async with run.traffic(f"wave{n}"):
                if dies:
                    consumer.process.kill()
                await asyncio.to_thread(three.kill, NODES[n % len(NODES)])
                if dies:
                    consumer = run.start(**WORKING)
                await asyncio.sleep(run.chance.uniform(1, 6))
                await asyncio.to_thread(three.start, NODES[n % len(NODES)])
                await three.until_whole()
        await _check(run, consumer)


@alone_and_with_consumers
async def test_leaders_move(three: ThreeBrokers, tmp_path: Path, dies: bool) -> None:
    """Coordinators and the leaders of ingest and results, by election and by reassignment."""
    async with (
        scenario(three, tmp_path, replicas=REPLICAS) as run,
        leaders(three.bootstrap) as found,
    ):
        consumer, transactional_id = None, f"{run.group_id}-{run.topics.ingest}-0"
        led = {
            OFFSETS: await found.partition_of(OFFSETS, run.group_id),
            TRANSACTIONS: await found.partition_of(TRANSACTIONS, transactional_id),
            run.topics.ingest: 0,
            run.topics.results: 0,
        }
        for n in range(scale(1, 5)):
            for topic, partition in led.items():
                consumer = await _at_work(run, consumer)
                async with run.traffic(f"{topic}.{n}"):
                    move = found.reassign if n % 2 else found.move
                    async with asyncio.TaskGroup() as moment:
                        moment.create_task(move(topic, partition))
                        if dies:
                            await asyncio.sleep(run.chance.uniform(0, 0.3))
                            await asyncio.to_thread(consumer.end, signal.SIGKILL)
                await found.until_in_sync(REPLICAS)
        await _check(run, consumer)


@full_only
@alone_and_with_consumers
async def test_rolling_restart(three: ThreeBrokers, tmp_path: Path, dies: bool) -> None:
    """Each broker is stopped in order and started again, as at an upgrade."""
    async with scenario(three, tmp_path, replicas=REPLICAS) as run:
        consumer = None
        for n in range(2):
            for node in NODES:
                consumer = await _at_work(run, consumer)
                async with run.traffic(f"{n}.{node}"):
                    stopping = asyncio.create_task(asyncio.to_thread(three.stop, node))
                    if dies:
                        await asyncio.sleep(run.chance.uniform(0, 1))
                        await asyncio.to_thread(consumer.end, signal.SIGKILL)
                        consumer = run.start(**WORKING)
                    await stopping
                    await asyncio.to_thread(three.start, node)
                    await three.until_whole()
        await _check(run, consumer)


async def _at_work(run: Scenario, consumer: Running | None) -> Running:
    """Return a consumer that is in the middle of its work: this one, or if it ended another."""
    wave = f"{run.starts}.{run.chance.randrange(10**6)}"
    await run.publish([f"{wave}.{name}" for name in names(100)])
    before = _done(consumer) if consumer else 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if consumer is None or consumer.process.poll() is not None:
                consumer, before = run.start(**WORKING), 0
            if _done(consumer) >= before + 20:
                return consumer
            await asyncio.sleep(0.05)


def _done(consumer: Running) -> int:
    return sum(event["event"] == "record done" for event in consumer.events())


async def _check(run: Scenario, consumer: Running | None) -> None:
    """Every record has its one outcome, and no consumer ended by an error without a name."""
    (await run.finish(*([consumer] if consumer else []), seconds=180, **WORKING)).check()
    for log in run.folder.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()
