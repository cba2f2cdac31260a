"""A coordinator that stood still: it tells old positions until it hears that it was replaced."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from consumer.broker.cluster import TopicFacts
from consumer.broker.transactions import PartitionTransactions
from imagelane.position import Position
from schemas import OutgoingRecord
from tests.faults.cluster import NODES, ThreeBrokers
from tests.faults.leaders import OFFSETS, PATIENCE_SECONDS, leaders, until_gone
from tests.faults.scenario import Scenario, full_only, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]

OLD, NEW, DOUBTFUL = Position(offset=1), Position(offset=2), Position(offset=3)


class LosesTheAnswer(PartitionTransactions):
    """The first commit is done, and its answer is lost."""

    lost = False

    async def _transaction(self, outputs: Sequence[OutgoingRecord], position: Position) -> None:
        await super()._transaction(outputs, position)
        if not self.lost:
            self.lost = True
            raise TimeoutError("no answer, says the test")


@pytest.mark.parametrize(
    ("at", "read"),
    [
        ("start", 2),
        pytest.param("start", 1, marks=full_only),
        pytest.param("doubt", 1, marks=full_only),
        pytest.param("doubt", 2, marks=full_only),
    ],
)
async def test_coordinator_that_stood_still_is_not_believed(
    three: ThreeBrokers, tmp_path: Path, at: str, read: int
) -> None:
    """Whichever read of the position it answers, at a start or while a commit is in doubt."""
    async with scenario(three, tmp_path, replicas=len(NODES)) as run:
        await _commit(run, three.bootstrap, OLD)
        async with _coordinator_paused(three, run) as (paused, stale):
            others, asked = three.without(paused), 0
            await _commit(run, others, NEW)

            async def committed() -> Position | None:
                nonlocal asked
                asked += armed
                if asked != read:
                    return await _position(run, others)
                resuming = asyncio.create_task(asyncio.to_thread(three.resume, paused))
                found = await stale()
                await resuming
                return found

            armed = at == "start"
            opened = _transactions(run, others, committed)
            opened.__class__ = LosesTheAnswer
            assert await opened.start() == NEW
            armed = True
            await opened.commit([], DOUBTFUL)
            await opened.stop()
        assert await _position(run, three.bootstrap) == DOUBTFUL


@asynccontextmanager
async def _coordinator_paused(
    three: ThreeBrokers, run: Scenario
) -> AsyncIterator[tuple[int, Callable[[], Awaitable[Position | None]]]]:
    """Let a group's coordinator stand still until there is another; yield it, and how to ask it.

    It is asked on a connection that it already had.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=three.bootstrap)
    await admin.start()
    async with leaders(three.bootstrap) as found:
        number = await found.leader(OFFSETS, await found.partition_of(OFFSETS, run.group_id))
        await admin._send_request(FindCoordinatorRequest(run.group_id, 0), number)
        await asyncio.to_thread(three.pause, number)
        try:
            await until_gone(three.without(number), number)
            async with leaders(three.without(number)) as others:
                await others.until_coordinated_by_another(run.group_id, number)

            async def ask() -> Position | None:
                answer = await admin._send_request(FindCoordinatorRequest(run.group_id, 0), number)
                found = await _offset(admin, run, answer.coordinator_id)
                sys.stdout.write(f"\nafter the pause: {found}\n")
                return found

            yield number, ask
        finally:
            await asyncio.to_thread(three.resume, number)
            await admin.close()
        await found.until_in_sync(len(NODES))


def _transactions(
    run: Scenario, bootstrap: str, committed: Callable[[], Awaitable[Position | None]]
) -> PartitionTransactions:
    facts: dict[str, Any] = {
        "partitions": 1,
        "append_time": False,
        "unpacked": False,
        "max_batch_bytes": 10**6,
    }
    return PartitionTransactions(
        group_id=run.group_id,
        partition=TopicPartition(run.topics.ingest, 0),
        outputs=[TopicFacts(name=name, **facts) for name in (run.topics.results, run.topics.dlq)],
        client={"bootstrap_servers": bootstrap},
        timeout_seconds=20,
        committed=committed,
    )


async def _commit(run: Scenario, bootstrap: str, position: Position) -> None:
    opened = _transactions(run, bootstrap, lambda: _position(run, bootstrap))
    await opened.start()
    await opened.commit([], position)
    await opened.stop()


async def _position(run: Scenario, bootstrap: str) -> Position | None:
    """Ask the coordinator of now."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return await _offset(admin, run, await admin.find_coordinator(run.group_id))
                except KafkaError:
                    await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def _offset(admin: AIOKafkaAdminClient, run: Scenario, node: int) -> Position | None:
    answer = await admin._send_request(OffsetFetchRequest(run.group_id, None), node)
    if answer.error_code:
        raise KafkaError(answer.error_code)
    offsets = [part[1] for _, partitions in answer.topics for part in partitions]
    return Position(offset=offsets[0]) if offsets and offsets[0] >= 0 else None
