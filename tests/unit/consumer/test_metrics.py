"""What is counted when, and how a distribution and a page of it look."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from consumer.outcome import (
    DeadLetterContent,
    ErrorOutcome,
    Inference,
    OkOutcome,
    Outcome,
    RefusedOutcome,
    RepeatOutcome,
)
from consumer.partition.offsets import OffsetTracker
from consumer.runtime.distribution import SECONDS, SIZES, Distribution
from consumer.runtime.readiness import Readiness
from consumer.runtime.stop import StopRequest
from consumer.telemetry.collector import exposition
from consumer.telemetry.metrics import METRICS, Kind
from consumer.telemetry.state import ProcessState
from consumer.telemetry.tally import OutcomeTally
from imagelane.position import Position
from schemas import (
    Code,
    ImageReference,
    OutgoingRecord,
    Record,
    Request,
    Stage,
    Task,
    TimingMs,
)
from tests.fakes import FACTS
from tests.metrics_page import parse, value
from tests.unit.schemas.records import record

REQUEST = Request(id="a", image=ImageReference(uri="file:///a"), tasks=(Task.EMBED,))
RECORD = record()
KEPT = DeadLetterContent(key=None, value=None, headers=(), truncated=False)

INFERENCE = Inference(vector=None, caption=None, embed_ms=20.0, caption_ms=None)
OK = OkOutcome(request=REQUEST, image=FACTS, inference=INFERENCE, queue_ms=2000.0, total_ms=50.0)
TIMING = TimingMs(queue=1000.0, fetch=4.0, decode=None, total=70.0)


def _error(code: Code) -> ErrorOutcome:
    return ErrorOutcome(request=REQUEST, code=code, message="", attempts=1, timing=TIMING)


EVERY_OUTCOME: list[Outcome] = [
    OK,
    RepeatOutcome(id="a"),
    *(
        RefusedOutcome(code=code, reason="", content=KEPT)
        if code.stage is Stage.ADMIT
        else _error(code)
        for code in Code
    ),
]


def _write(record: Record, outcome: Outcome, now: float) -> list[OutgoingRecord]:
    return []


async def _commit(outputs: object, position: Position) -> None:
    pass


async def test_outcomes_count_when_they_are_committed() -> None:
    """Once each, by outcome and code; what is written and not committed is not there."""
    tally = OutcomeTally()
    write, commit = tally.wrap(_write, _commit)
    for outcome in EVERY_OUTCOME:
        write(RECORD, outcome, 0.0)
    assert not any(tally.records.values())
    await commit([], Position(offset=1))
    assert set(tally.records.values()) == {1}
    assert len(tally.records) == len(Code) + 2
    await commit([], Position(offset=1))
    assert tally.records.total() == len(Code) + 2
    assert tally.commit_seconds.buckets[-1] == ("+Inf", 2)


async def test_commit_that_fails_counts_nothing() -> None:
    """It ends the process; whatever comes after it has its own count."""

    async def fail(outputs: object, position: Position) -> None:
        raise OSError("gone")

    tally = OutcomeTally()
    write, commit = tally.wrap(_write, fail)
    write(RECORD, OK, 0.0)
    with pytest.raises(OSError, match="gone"):
        await commit([], Position(offset=1))
    assert not any(tally.records.values())


async def test_stages_are_those_that_a_record_went_through() -> None:
    """In seconds: an image that is not decoded has no time of decoding."""
    tally = OutcomeTally()
    write, commit = tally.wrap(_write, _commit)
    write(RECORD, OK, 0.0)
    write(RECORD, _error(Code.NOT_AN_IMAGE), 0.0)
    await commit([], Position(offset=1))
    seconds = {stage: found.sum for stage, found in tally.stage_seconds.items()}
    fetch, decode = FACTS.fetch_ms / 1000, FACTS.decode_ms / 1000
    assert seconds == pytest.approx(
        {
            "queue": 3.0,
            "fetch": fetch + 0.004,
            "decode": decode,
            "embed": 0.02,
            "caption": 0.0,
            "total": 0.12,
        }
    )
    counts = {stage: found.buckets[-1][1] for stage, found in tally.stage_seconds.items()}
    assert counts == {"queue": 2, "fetch": 2, "decode": 1, "embed": 1, "caption": 0, "total": 2}


SOME_SECONDS = st.floats(0, 1000) | st.sampled_from(SECONDS)


@given(st.lists(st.lists(SOME_SECONDS)))
def test_distribution_is_prometheus_own(batches: list[list[float]]) -> None:
    """The same buckets and sum as those of its client, one value after the other."""
    ours = Distribution(SECONDS)
    theirs = Histogram("x", "x", buckets=SECONDS, registry=CollectorRegistry())
    for batch in batches:
        ours.observe(batch)
        for each in batch:
            theirs.observe(each)
    [family] = theirs.collect()
    samples = {s.labels.get("le", s.name): s.value for s in family.samples}
    assert dict(ours.buckets) == {le: samples[le] for le, _ in ours.buckets}
    assert ours.sum == pytest.approx(samples["x_sum"])


@given(st.lists(st.integers(1, 2000)))
def test_distribution_of_sizes_counts_each_as_often_as_it_was(sizes: list[int]) -> None:
    """Batches are kept as a count by their size."""
    one_by_one = Distribution(SIZES)
    one_by_one.observe(sizes)
    found = Distribution.of_sizes({size: sizes.count(size) for size in sizes})
    assert found.buckets == one_by_one.buckets
    assert found.sum == sum(sizes)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_names_follow_the_conventions(metric: Any) -> None:
    """One prefix, `_total` for counters alone, a base unit where there is one, one sentence."""
    assert re.fullmatch(r"imagelane(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert "_ms" not in metric.name
    assert metric.meaning.endswith(".")
    assert ". " not in metric.meaning
    assert "\n" not in metric.meaning


async def test_page_before_the_models_are_warm() -> None:
    """It can be scraped from the start, and says why it is not ready."""
    stop = StopRequest()
    state = ProcessState(readiness=Readiness(), stop=stop)
    page = parse((await exposition(state)).decode())
    assert value(page, "live") == value(page, "ready") == 0
    assert value(page, "not_ready", "start") == 1
    assert ("process_resident_memory_bytes", frozenset()) in page


def test_untaken_records_are_those_that_are_left() -> None:
    """Neither what is done above the committed offset, nor what is no record."""
    tracker = OffsetTracker(0)
    assert tracker.untaken(position=0, end=10) == 10
    for offset in range(6):
        tracker.take(offset)
    assert tracker.untaken(position=6, end=10) == 4
    for offset in (1, 2, 5):
        tracker.done(offset)
    restarted = OffsetTracker.from_position(tracker.position())
    assert restarted.untaken(position=0, end=10) == 3 + 4  # 0, 3, 4, and 6 to 9
    assert tracker.untaken(position=10, end=10) == 0  # 6 to 9 are markers
    assert tracker.untaken(position=6, end=0) == 0
