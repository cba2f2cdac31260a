"""A broker that dies, or that a network stands before: delayed, deaf, or cut in one answer."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagelane.exits import ExitCode
from tests.conftest import require_docker
from tests.containers import KAFKA_IMAGE, ApacheKafka, free_port
from tests.faults.proxy import Late, Proxy, proxy
from tests.faults.scenario import names, scale, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]


pytestmark.append(
    pytest.mark.skipif("BOOTSTRAP" in os.environ, reason="a cluster of others is not killed")
)


@pytest.fixture
def mortal() -> Iterator[ApacheKafka]:
    """A broker of the test's own, since it is killed."""
    require_docker(KAFKA_IMAGE)
    with ApacheKafka.running() as broker:
        yield broker


@pytest.fixture(scope="module")
def proxy_port() -> int:
    """The port that the broker advertises, where the proxy will be."""
    return free_port()


@pytest.fixture(scope="module")
def distant(proxy_port: int) -> Iterator[ApacheKafka]:
    """A broker that has two addresses: one for the tests, and one that leads through the proxy."""
    require_docker(KAFKA_IMAGE)
    with ApacheKafka.running(proxied_port=proxy_port) as broker:
        yield broker


@pytest.fixture
async def network(distant: ApacheKafka, proxy_port: int) -> AsyncIterator[Proxy]:
    """The proxy, without a fault so far."""
    async with proxy(proxy_port, distant.behind_proxy_port) as made:
        yield made


async def test_broker_is_killed_and_starts_again(mortal: ApacheKafka, tmp_path: Path) -> None:
    """In the middle of the work: the consumer waits or is started again, and goes on."""
    async with scenario(mortal, tmp_path) as run:
        consumer = None
        for n in range(scale(1, 3)):
            await run.publish([f"{n}.{name}" for name in names(300)])
            consumer = consumer or run.start(RECORDS_IN_FLIGHT="8")
            if consumer.process.poll() is not None:
                consumer = run.start(RECORDS_IN_FLIGHT="8")
            consumer.wait_for("record done", count=20)
            await asyncio.to_thread(mortal.kill)
            await asyncio.sleep(2)
            await asyncio.to_thread(mortal.start)
        (await run.finish(*([consumer] if consumer else []), seconds=180)).check()


@pytest.mark.parametrize("answer", ["came", "was lost"])
async def test_broker_dies_when_it_answers_a_commit(
    mortal: ApacheKafka, tmp_path: Path, answer: str
) -> None:
    """A broker alone may lose the markers of that commit: what is hidden must not be shown twice.

    The consumer dies with it, and a new owner begins; or it lives and never saw the answer.
    """
    if os.geteuid() != 0:
        pytest.skip("only root may kill the process of a container")
    fault = "kill_broker" if answer == "came" else "lose_broker"
    async with scenario(mortal, tmp_path) as run:
        for n in range(scale(1, 12)):
            await run.publish([f"{n}.{name}" for name in names(100)])
            armed = {"FAULT": f"{fault}:{5 + n}", "BROKER_PID": str(mortal.pid)}
            consumer = run.start(RECORDS_IN_FLIGHT="8", COMMIT_OUTCOMES="5", **armed)
            if answer == "came":
                await asyncio.to_thread(consumer.process.wait, 60)
            else:
                await asyncio.to_thread(consumer.wait_for, "commit in doubt")
            await asyncio.sleep(1)  # until Docker knows that the broker is dead
            await asyncio.to_thread(mortal.start)
            (await run.finish(consumer, seconds=180)).check()


@pytest.mark.parametrize("way", ["killed", "paused"])
async def test_stop_while_the_broker_is_away(mortal: ApacheKafka, tmp_path: Path, way: str) -> None:
    """What cannot be committed is given up within STOP_SECONDS + 2, beyond which the code is 74."""
    if os.geteuid() != 0:
        pytest.skip("only root may stop the process of a container")
    async with scenario(mortal, tmp_path) as run:
        await run.publish(names(300))
        consumer = run.start(RECORDS_IN_FLIGHT="8", COMMIT_OUTCOMES="5", STOP_SECONDS="2")
        consumer.wait_for("record done", count=20)
        os.kill(mortal.pid, signal.SIGKILL if way == "killed" else signal.SIGSTOP)
        await asyncio.to_thread(consumer.wait_for, "commit in doubt")
        assert await asyncio.to_thread(consumer.end) == ExitCode.OK
        if way == "killed":
            await asyncio.sleep(1)  # until Docker knows
            await asyncio.to_thread(mortal.start)
        else:
            os.kill(mortal.pid, signal.SIGCONT)
        (await run.finish(seconds=180)).check()
        said = [event for event in consumer.events() if event["event"] == "kafka client"]
        assert len({event["reason"] for event in said}) == len(said)  # none of them again


async def test_broker_that_comes_later_is_waited_for(mortal: ApacheKafka, tmp_path: Path) -> None:
    """A consumer that starts before the broker says so, and begins when it is there."""
    async with scenario(mortal, tmp_path) as run:
        await run.publish(names(20))
        await asyncio.to_thread(mortal.stop)
        consumer = run.start()
        await asyncio.to_thread(consumer.wait_for, "waiting for a broker")
        await asyncio.to_thread(mortal.start)
        (await run.finish(consumer)).check()
        assert run.starts == 1


@pytest.mark.parametrize("n", range(scale(1, 5)))
async def test_answer_to_the_commit_is_cut(
    distant: ApacheKafka, network: Proxy, proxy_port: int, tmp_path: Path, n: int
) -> None:
    """The broker committed and the consumer cannot know: it finds out, and writes nothing twice."""
    async with scenario(distant, tmp_path, bootstrap=f"127.0.0.1:{proxy_port}") as run:
        await run.publish(names(100))
        network.cuts = 2
        consumer = run.start(RECORDS_IN_FLIGHT="16")
        (await run.finish(consumer)).check()
        assert network.cut >= 1


@pytest.mark.parametrize("n", range(scale(1, 5)))
async def test_network_that_delays(
    distant: ApacheKafka, network: Proxy, proxy_port: int, tmp_path: Path, n: int
) -> None:
    """Every request and answer comes late: slower, and nothing else."""
    async with scenario(distant, tmp_path, bootstrap=f"127.0.0.1:{proxy_port}") as run:
        await run.publish(names(60))
        # A worker is opened in some five seconds then, and no heartbeat is sent meanwhile.
        slow: dict[str, Any] = {
            "SESSION_TIMEOUT_SECONDS": "15",
            "TRANSACTION_TIMEOUT_SECONDS": "10",
        }
        consumer = run.start(**slow)
        network.delay_seconds = 0.2
        (await run.finish(consumer, **slow)).check()


@pytest.mark.parametrize("n", range(scale(1, 5)))
async def test_network_that_goes_deaf(
    distant: ApacheKafka, network: Proxy, proxy_port: int, tmp_path: Path, n: int
) -> None:
    """Half-open: connections stand and nothing passes, longer than a transaction may take."""
    async with scenario(distant, tmp_path, bootstrap=f"127.0.0.1:{proxy_port}") as run:
        await run.publish(names(300))
        consumer = run.start(RECORDS_IN_FLIGHT="8")
        await asyncio.to_thread(consumer.wait_for, "record done", 20)
        network.deaf = True
        await asyncio.sleep(6)
        network.deaf = False
        (await run.finish(consumer)).check()


@pytest.mark.parametrize(
    "fault",
    [
        "none:0",
        "after_send_offsets:4",
    ],
)
async def test_commit_that_arrives_in_the_next_transaction(
    distant: ApacheKafka, network: Proxy, proxy_port: int, tmp_path: Path, fault: str
) -> None:
    """Sent again after a lost connection, the first one still comes, and then the process dies."""
    async with scenario(distant, tmp_path, bootstrap=f"127.0.0.1:{proxy_port}") as run:
        await run.publish(names(100))
        network.late = Late(3)
        ledger = await run.finish(run.start(RECORDS_IN_FLIGHT="8", FAULT=fault))
        assert network.late.delivered
        ledger.check()
