"""The workers of a process: opened and closed by a rebalance, by a stop, and by both at once."""

import asyncio
from collections.abc import Sequence

from consumer.partition.assigned import MakeWorker, PartitionWorkers
from consumer.partition.worker import CommitPolicy, PartitionWorker, Recall
from consumer.record.replay_window import ReplayEntry
from imagelane.position import Position
from schemas import ImageReference, Request, Task
from tests.fakes import INGEST, FakePreparation, FakeStream, fake_pipeline, signed_record

REQUEST = Request(id="r0", image=ImageReference(uri="file:///a.png"), tasks=(Task.EMBED,))


def _maker(hanging: asyncio.Event) -> MakeWorker:
    pipeline = fake_pipeline(preparation=FakePreparation(waits={"r0": hanging}))
    return lambda topic, offsets, commit: PartitionWorker(
        offsets=offsets,
        work=pipeline,
        write=lambda record, outcome, now: [],
        commit=commit,
        policy=CommitPolicy(max_outcomes=1, max_seconds=0),
        records_in_flight=8,
    )


async def _no_history(recall: Recall) -> Sequence[ReplayEntry]:
    return []


async def _endless_history(recall: Recall) -> Sequence[ReplayEntry]:
    await asyncio.Event().wait()
    return []


async def test_second_close_waits_for_the_first() -> None:
    """A stop in the middle of a rebalance: nobody stops a producer under a worker that finishes."""
    stream, hanging = FakeStream([signed_record(REQUEST)]), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        workers = PartitionWorkers(_maker(hanging), tasks, finish_seconds=30)
        workers.open((INGEST, 0), Position(offset=0), stream.commit, _no_history)
        await asyncio.sleep(0)
        workers.take(stream.records[0])
        first = tasks.create_task(workers.close())
        await asyncio.sleep(0)
        second = tasks.create_task(workers.stop(finish_seconds=30, commit_seconds=5))
        done, _ = await asyncio.wait({second}, timeout=0.1)
        assert not done
        hanging.set()
        await asyncio.gather(first, second)
    assert stream.committed == Position.up_to(1)


async def test_no_lane_is_opened_while_the_process_stops() -> None:
    """An assignment that comes late would never be closed."""
    async with asyncio.TaskGroup() as tasks:
        workers = PartitionWorkers(_maker(asyncio.Event()), tasks, finish_seconds=0)
        await workers.stop(finish_seconds=30, commit_seconds=5)
        workers.open((INGEST, 0), Position(offset=0), FakeStream([]).commit, _no_history)
        assert workers.capacity() == {}


async def test_lane_that_reads_its_history_can_be_closed() -> None:
    """However long that takes; nothing of it is lost."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        workers = PartitionWorkers(_maker(asyncio.Event()), tasks, finish_seconds=0)
        workers.open((INGEST, 0), Position(offset=0), FakeStream([]).commit, _endless_history)
        await asyncio.sleep(0)
        await workers.close()
