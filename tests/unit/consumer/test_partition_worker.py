"""A partition worker: one outcome for each record, and commits that never run ahead."""

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import Failed
from consumer.outcome import ModelIdentity
from consumer.partition.offsets import OffsetTracker
from consumer.partition.worker import CommitPolicy, History, PartitionWorker, Recall
from consumer.record.dead_letters import DeadLetterRate
from consumer.record.replay_window import ReplayEntry
from consumer.record.results import OutcomeEncoder
from consumer.record.secret_proof import SecretProof
from imagelane.exits import ExitCode, FatalError
from imagelane.position import MAX_METADATA_BYTES, MAX_SPAN, Position
from schemas import (
    Code,
    ImageReference,
    OutgoingRecord,
    Record,
    Request,
    Signer,
    Task,
    decode_result,
    headers,
)
from tests.effort import effort
from tests.fakes import (
    DLQ,
    KEYS,
    RESULTS,
    FakePreparation,
    FakeStream,
    fake_pipeline,
    proven,
    signed_record,
)

IDENTITY = ModelIdentity(model="tiny", revision="0")
WRITER = OutcomeEncoder(
    signer=Signer(KEYS, RESULTS),
    results_topic=RESULTS,
    dlq_topic=DLQ,
    group_id="g",
    embedder=IDENTITY,
    captioner=IDENTITY,
)


def _records(verdicts: Iterable[str]) -> list[Record]:
    records = []
    for offset, verdict in enumerate(verdicts):
        request = Request(
            id=f"r{offset}", image=ImageReference(uri="file:///a.png"), tasks=(Task.EMBED,)
        )
        changes: dict[str, object] = {"headers": []} if verdict == "forged" else {}
        records.append(signed_record(request, offset=offset, **changes))
    return records


def _worker(
    stream: FakeStream,
    *,
    preparation: FakePreparation | None = None,
    offsets: OffsetTracker | None = None,
    proof: SecretProof | None = None,
    policy: CommitPolicy | None = None,
    in_flight: int = 256,
    rate: int = 2**40,
) -> PartitionWorker:
    pipeline = fake_pipeline(
        proof=proof or proven(),
        preparation=preparation or FakePreparation(),
        dead_letter_rate=DeadLetterRate(rate),
    )
    return PartitionWorker(
        offsets=offsets or OffsetTracker(0),
        work=pipeline,
        write=WRITER.write,
        commit=stream.commit,
        policy=policy or CommitPolicy(max_outcomes=3, max_seconds=0),
        records_in_flight=in_flight,
    )


def _history(*records: Record) -> History:
    async def history(recall: Recall) -> Sequence[ReplayEntry]:
        return [seen for record in records if (seen := recall(record))]

    return history


async def _run(
    worker: PartitionWorker, records: Sequence[Record], finish_seconds: float = 5.0
) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        for record in records:
            worker.take(record, tasks)
        await worker.close(finish_seconds)
        await running


def _answered(stream: FakeStream) -> Counter[int]:
    """Count the outcomes by offset: a result, or a dead letter without one."""
    results = Counter(
        decode_result(out.value).source.offset for out in stream.outputs if out.topic == RESULTS
    )
    letters = Counter(
        int(dict(out.headers)[headers.DLQ_OFFSET]) for out in stream.outputs if out.topic == DLQ
    )
    refused = {offset: n for offset, n in letters.items() if offset not in results}
    assert max(letters.values(), default=1) == 1
    return results + Counter(refused)


@settings(max_examples=effort(60))
@given(st.data())
def test_every_record_has_exactly_one_outcome(data: st.DataObject) -> None:
    """Any script of good, bad and slow records, with the process ended anywhere in between."""
    verdicts = data.draw(
        st.lists(st.sampled_from(["good", "failed", "forged"]), min_size=1, max_size=25)
    )
    slow = data.draw(st.dictionaries(st.integers(0, 24), st.integers(1, 40), max_size=8))
    stream = FakeStream(_records(verdicts))
    faults = {
        f"r{i}": Failed(Code.NOT_FOUND, "gone") for i, v in enumerate(verdicts) if v == "failed"
    }
    turns = {f"r{offset}": count for offset, count in slow.items()}

    async def script() -> None:
        for _ in range(data.draw(st.integers(0, 3))):
            await _until_crash(stream, faults, turns, data.draw(st.integers(0, 30)))
        worker = _worker(
            stream,
            preparation=FakePreparation(faults=faults, turns=turns),
            offsets=OffsetTracker.from_position(stream.committed or Position(offset=0)),
        )
        await _run(worker, stream.read())

    asyncio.run(script())
    assert _answered(stream) == Counter(range(len(verdicts)))
    offsets = [position.offset for position in stream.commits]
    assert offsets == sorted(offsets)
    assert stream.committed == Position.up_to(len(verdicts))


async def _until_crash(
    stream: FakeStream, faults: Mapping[str, Exception], turns: Mapping[str, int], after_turns: int
) -> None:
    """Run a worker for some turns of the loop, then end it as a kill would: no last commit."""
    worker = _worker(
        stream,
        preparation=FakePreparation(faults=faults, turns=turns),
        offsets=OffsetTracker.from_position(stream.committed or Position(offset=0)),
    )
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run(_history()))
            for record in stream.read():
                worker.take(record, tasks)
            for _ in range(after_turns):
                await asyncio.sleep(0)
            raise InterruptedError


async def test_hanging_record_holds_back_no_other() -> None:
    """The others are answered and recorded as done while one image never comes."""
    never = asyncio.Event()
    stream = FakeStream(_records(["good"] * 6))
    worker = _worker(stream, preparation=FakePreparation(waits={"r2": never}))
    await _run(worker, stream.records, finish_seconds=0.05)
    assert _answered(stream) == Counter([0, 1, 3, 4, 5])
    assert stream.committed is not None
    assert stream.committed.offset == 2
    again = OffsetTracker.from_position(stream.committed)
    assert [r.offset for r in stream.records if again.take(r.offset)] == [2]


async def test_room_counts_what_is_not_committed() -> None:
    """The window is from taken to committed."""
    stream = FakeStream(_records(["good"] * 3))
    worker = _worker(stream, in_flight=4, policy=CommitPolicy(max_outcomes=500, max_seconds=60))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        await asyncio.sleep(0)
        assert worker.capacity == 4
        for record in stream.records:
            worker.take(record, tasks)
        assert worker.capacity == 1
        await worker.close(1)
        await running


async def test_no_record_is_taken_before_the_history_is_recalled() -> None:
    """A repeat of a record before the position is known as one, however soon it comes."""
    stream = FakeStream(_records(["good"] * 2))
    first, again = stream.records
    stream.records[1] = dataclasses.replace(first, offset=again.offset)
    worker = _worker(stream, offsets=OffsetTracker(1))
    assert worker.capacity == 0
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history(first)))
        while not worker.capacity:  # noqa: ASYNC110 - what is awaited are turns of the loop
            await asyncio.sleep(0)
        worker.take(stream.records[1], tasks)
        await worker.close(1)
        await running
    assert stream.outputs == []
    assert stream.committed == Position.up_to(2)


async def test_outcomes_share_a_transaction() -> None:
    """What is there together is committed together, up to the limit."""
    stream = FakeStream(_records(["good"] * 10))
    worker = _worker(stream, policy=CommitPolicy(max_outcomes=5, max_seconds=1))
    await _run(worker, stream.records)
    assert len(stream.commits) == 2


async def _read_like_the_service(
    worker: PartitionWorker, records: Sequence[Record], finish_seconds: float = 5.0
) -> None:
    """Hand records over, and again from where the worker wants to go back to."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        await asyncio.sleep(0)
        at = 0
        while at < len(records):
            worker.take(records[at], tasks)
            at += 1
            if (offset := worker.rewind()) is not None:
                at = next(i for i, record in enumerate(records) if record.offset >= offset)
        await worker.close(finish_seconds)
        await running


async def test_nothing_is_committed_before_a_record_verifies() -> None:
    """Forgeries on an empty topic, or a wrong secret: nothing is lost, and nothing ends."""
    stream = FakeStream(_records(["forged"] * 500))
    proof = SecretProof()
    worker = _worker(stream, proof=proof)
    await _read_like_the_service(worker, stream.records)
    assert stream.commits == []
    assert worker.in_flight == 0
    assert "500 unsigned" in proof.doubt
    assert "SECRET_API_KEY" in proof.doubt


async def test_first_record_that_verifies_gives_everything_before_it_an_outcome() -> None:
    """The worker goes back, and neither a forgery nor a good record is left out or doubled."""
    verdicts = ["forged"] * 300 + ["good"] + ["forged", "good"] * 20
    stream = FakeStream(_records(verdicts))
    proof = SecretProof()
    await _read_like_the_service(_worker(stream, proof=proof, in_flight=4096), stream.records)
    assert _answered(stream) == Counter(range(len(verdicts)))
    assert stream.committed == Position.up_to(len(verdicts))
    assert proof.doubt is None


async def test_record_that_proves_the_secret_is_not_taken_before_those_it_stands_behind() -> None:
    """What a poll brought behind it waits as well, until the position was set back."""
    stream = FakeStream(_records(["forged", "good", "good"]))
    worker = _worker(stream, proof=SecretProof())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        for record in stream.records:
            worker.take(record, tasks)
        assert worker.in_flight == 0
        assert worker.rewind() == 0
        assert worker.rewind() is None
        for record in stream.records:
            worker.take(record, tasks)
        assert worker.in_flight == 3
        await worker.close(5)
        await running
    assert _answered(stream) == Counter(range(3))


async def test_proof_of_another_partition_sets_this_one_back() -> None:
    """Our secret is one: no partition waits for a good record of its own."""
    stream = FakeStream(_records(["forged"] * 3))
    proof = SecretProof()
    worker = _worker(stream, proof=proof)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        for record in stream.records:
            worker.take(record, tasks)
        assert worker.rewind() is None
        proof.note(None)
        assert worker.rewind() == 0
        await worker.close(5)
        await running


async def test_history_proves_the_secret() -> None:
    """After a restart one good record of before is enough."""
    records = _records(["good"] + ["forged"] * 5)
    stream = FakeStream(records)
    worker = _worker(stream, proof=SecretProof(), offsets=OffsetTracker(1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history(records[0])))
        while not worker.capacity:  # noqa: ASYNC110 - what is awaited are turns of the loop
            await asyncio.sleep(0)
        for record in records[1:]:
            worker.take(record, tasks)
        await worker.close(5)
        await running
    assert _answered(stream) == Counter(range(1, 6))


async def test_history_of_forgeries_proves_and_doubts_nothing() -> None:
    """What was refused before has its outcome: nothing waits because of it."""
    proof = SecretProof()
    worker = _worker(FakeStream([]), proof=proof)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history(*_records(["forged"] * 5))))
        await worker.close(5)
        await running
    assert not proof.proven
    assert proof.doubt is None


async def test_forgeries_above_the_rate_wait_without_their_bytes() -> None:
    """What the commit waits for holds no megabyte of each; every forgery has its dead letter."""
    big = dataclasses.replace(_records(["forged"])[0], value=b"x" * 200_000)
    records = [dataclasses.replace(big, offset=offset) for offset in range(100)]
    stream = FakeStream(records)
    worker = _worker(stream, rate=10_000)  # 600,000 bytes at once
    await _run(worker, records)
    assert _answered(stream) == Counter(range(100))
    whole = [out for out in stream.outputs if out.value == big.value]
    assert len(whole) == 2
    cut = [out for out in stream.outputs if out.value != big.value]
    assert all(dict(out.headers)[headers.DLQ_TRUNCATED] == b"true" for out in cut)
    assert max(len(out.value) for out in cut) < 300


async def test_what_is_beyond_the_metadata_waits_for_its_commit() -> None:
    """Where the log has gaps a batch reaches far; what no metadata can hold is not committed."""
    records = _records(["good"] * 3)
    far = [dataclasses.replace(records[2], offset=offset) for offset in (MAX_SPAN, MAX_SPAN + 7)]
    stream = FakeStream([records[0], records[1]])
    hanging = asyncio.Event()
    worker = _worker(stream, preparation=FakePreparation(waits={"r0": hanging}))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        for record in (*records[:2], *far):
            worker.take(record, tasks)
        while not stream.commits:  # noqa: ASYNC110 - what is awaited are turns of the loop
            await asyncio.sleep(0)
        assert len(stream.outputs) == 1
        assert all(len(p.metadata) <= MAX_METADATA_BYTES for p in stream.commits)
        hanging.set()
        await worker.close(5)
        await running
    assert stream.committed == Position.up_to(MAX_SPAN + 8)


async def test_failed_commit_is_no_outcome() -> None:
    """Without a commit nothing counts as done, and the error ends the worker."""
    stream = FakeStream(_records(["good"]))

    async def commit(outputs: Sequence[OutgoingRecord], position: Position) -> None:
        raise FatalError(ExitCode.FENCED, "fenced")

    stream.commit = commit  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        await _run(_worker(stream), stream.records)
    assert stream.outputs == []


async def test_commit_gives_its_room_back() -> None:
    """After a commit the worker takes as many again."""
    stream = FakeStream(_records(["good"] * 2))
    worker = _worker(stream, in_flight=2)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        for record in stream.records:
            worker.take(record, tasks)
        while len(stream.commits) < 1:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert worker.capacity == 2
        await worker.close(1)
        await running


async def test_closed_lane_takes_nothing() -> None:
    """A record that arrives after the close is left to the next owner."""
    stream = FakeStream(_records(["good"] * 2))
    worker = _worker(stream)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(_history()))
        worker.take(stream.records[0], tasks)
        await worker.close(1)
        worker.take(stream.records[1], tasks)
        await running
    assert stream.committed == Position.up_to(1)


async def test_commit_does_not_wait_for_records_that_are_not_there() -> None:
    """With nothing else in flight an outcome is committed at once, however long it may wait."""
    stream = FakeStream(_records(["good"] * 2))
    worker = _worker(stream, policy=CommitPolicy(max_outcomes=500, max_seconds=3600))
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
        running = tasks.create_task(worker.run(_history()))
        for record in stream.records:
            worker.take(record, tasks)
        while not stream.commits:  # noqa: ASYNC110 - what is awaited are turns of the loop
            await asyncio.sleep(0)
        await worker.close(1)
        await running
    assert stream.commits == [Position.up_to(2)]
