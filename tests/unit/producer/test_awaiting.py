"""What ends a wait: a signed result, or a dead letter that names our place in the log."""

import gc
import weakref

import pytest

from producer.dead_letters import Place
from producer.outcomes import Outcomes, Waiting
from schemas import (
    Code,
    Failure,
    KeyRing,
    Record,
    Result,
    Signer,
    Source,
    TimestampType,
    TimingMs,
    encode_result,
)

INGEST, RESULTS, DLQ = "image.ingest", "image.results", "image.ingest.dlq"
KEYS = KeyRing(current_id="k1", secrets={"k1": bytes(range(32))})
PLACE = Place(INGEST, 0, 7)


def outcomes() -> Outcomes:
    return Outcomes(KEYS, RESULTS)


def record(topic: str, value: bytes, headers: list[tuple[str, bytes]]) -> Record:
    return Record(
        topic=topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        timestamp_type=TimestampType.CREATE,
        key=None,
        value=value,
        headers=headers,
    )


def result(id: str = "a1", *, signed_for: str = RESULTS) -> Record:
    value = encode_result(
        Result(
            id=id,
            status="error",
            error=Failure(code=Code.NOT_FOUND, message="gone", attempts=1),
            timing_ms=TimingMs(),
            source=Source(topic=INGEST, partition=0, offset=7),
        )
    )
    headers = Signer(KEYS, signed_for).sign(id=id, timestamp=1, key=None, value=value)
    return record(RESULTS, value, headers)


def dead_letter(id: str = "a1", *, stage: bytes = b"admit", place: Place = PLACE) -> Record:
    headers = [
        ("sig-id", id.encode()),
        ("__dlq.errors.topic", place.topic.encode()),
        ("__dlq.errors.partition", b"%d" % place.partition),
        ("__dlq.errors.offset", b"%d" % place.offset),
        ("__dlq.errors.message", b"too old"),
        ("dlq-code", b"stale"),
        ("dlq-stage", stage),
    ]
    return record(DLQ, b"{}", headers)


def is_over(waiting: Waiting) -> bool:
    return waiting.outcome.done()


async def test_a_signed_result_ends_the_wait() -> None:
    """With the bytes as received, and the code and message of its error."""
    all_outcomes, arrived = outcomes(), result()
    waiting = all_outcomes.expect("a1")

    all_outcomes.take(arrived)

    outcome = waiting.outcome.result()
    assert (outcome.status, outcome.code, outcome.message) == ("error", "not_found", "gone")
    assert outcome.value == arrived.value


async def test_a_result_that_is_not_authentic_is_counted_and_ignored() -> None:
    """Whoever can write to the topic cannot speak for the consumer."""
    all_outcomes = outcomes()
    waiting = all_outcomes.expect("a1")

    all_outcomes.take(result(signed_for="another.topic"))
    all_outcomes.take(record(RESULTS, b"nonsense", []))

    assert not is_over(waiting)
    assert all_outcomes.unverifiable_count == 2


async def test_results_of_others_are_no_concern() -> None:
    """The topic is shared."""
    all_outcomes = outcomes()
    waiting = all_outcomes.expect("a1")

    all_outcomes.take(result("b2"))

    assert not is_over(waiting)
    assert all_outcomes.unverifiable_count == 0


@pytest.mark.parametrize("acknowledged_first", [True, False])
async def test_a_dead_letter_of_our_place_is_a_refusal(acknowledged_first: bool) -> None:
    """Even if it overtakes the broker's acknowledgement, which tells the place."""
    all_outcomes = outcomes()
    waiting = all_outcomes.expect("a1")

    if acknowledged_first:
        waiting.acknowledged(PLACE)
        all_outcomes.take(dead_letter())
    else:
        all_outcomes.take(dead_letter())
        waiting.acknowledged(PLACE)

    outcome = waiting.outcome.result()
    assert (outcome.status, outcome.code, outcome.message) == ("refused", "stale", "too old")


@pytest.mark.parametrize("acknowledged_first", [True, False])
async def test_a_dead_letter_of_another_place_is_not_ours(acknowledged_first: bool) -> None:
    """A forged copy of our record carries our id."""
    all_outcomes = outcomes()
    waiting = all_outcomes.expect("a1")

    if acknowledged_first:
        waiting.acknowledged(PLACE)
    all_outcomes.take(dead_letter(place=Place(INGEST, 0, 8)))
    waiting.acknowledged(PLACE)

    assert not is_over(waiting)


async def test_a_dead_letter_of_a_later_stage_waits_for_its_result() -> None:
    """That one is signed, and has more to say."""
    all_outcomes = outcomes()
    waiting = all_outcomes.expect("a1")
    waiting.acknowledged(PLACE)

    all_outcomes.take(dead_letter(stage=b"fetch"))

    assert not is_over(waiting)


@pytest.mark.parametrize("missing", ["__dlq.errors.topic", "__dlq.errors.offset", "sig-id"])
async def test_a_dead_letter_that_names_no_place_is_ignored(missing: str) -> None:
    """The topic may hold what others wrote."""
    all_outcomes, letter = outcomes(), dead_letter()
    waiting = all_outcomes.expect("a1")
    waiting.acknowledged(PLACE)

    headers = [header for header in letter.headers if header[0] != missing]
    all_outcomes.take(record(DLQ, b"{}", headers))

    assert not is_over(waiting)


async def test_an_id_that_is_published_twice_shares_one_outcome() -> None:
    """The consumer does it once."""
    all_outcomes = outcomes()
    first, second = all_outcomes.expect("a1"), all_outcomes.expect("a1")

    all_outcomes.take(result())

    assert is_over(first)
    assert is_over(second)


async def test_an_outcome_nobody_waits_for_is_forgotten() -> None:
    """A service that publishes for months and never asks does not grow."""
    all_outcomes = outcomes()
    kept, dropped = all_outcomes.expect("kept"), weakref.ref(all_outcomes.expect("dropped"))
    gc.collect()

    assert dropped() is None
    assert all_outcomes.expect("kept") is kept
