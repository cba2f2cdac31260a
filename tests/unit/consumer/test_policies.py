"""The small pure policies: replay window, retry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.images.retry import RetryPolicy
from consumer.record.replay_window import ReplayWindow
from schemas import Freshness, ImageReference, Record, Request, TimestampType
from tests.fakes import signed_record


def _record(timestamp_type: TimestampType, seconds: int, offset: int) -> Record:
    return signed_record(
        Request(id="any", image=ImageReference(uri="file:///a.png")),
        timestamp_type=timestamp_type,
        timestamp_ms=seconds * 1000,
        offset=offset,
    )


def _is_repeat(window: ReplayWindow, name: str, record: Record, now: float) -> bool:
    return window.is_repeat(window.entry(name, record, now))


@pytest.mark.parametrize("timestamp_type", TimestampType)
def test_repeat_inside_the_window_is_seen(timestamp_type: TimestampType) -> None:
    """The same id again within the window is a repeat, and another id is not."""
    window = ReplayWindow(Freshness(append_window_seconds=300, create_window_seconds=300))
    first, last = _record(timestamp_type, 1_000, 0), _record(timestamp_type, 1_600, 1)
    assert not _is_repeat(window, "a", first, now=1_000)
    assert _is_repeat(window, "a", last, now=1_600)
    assert not _is_repeat(window, "b", last, now=1_600)


@pytest.mark.parametrize("timestamp_type", TimestampType)
def test_id_is_forgotten_after_the_window(timestamp_type: TimestampType) -> None:
    """Beyond the window the signature would be stale, so the id need not be kept."""
    window = ReplayWindow(Freshness(append_window_seconds=300, create_window_seconds=300))
    _is_repeat(window, "a", _record(timestamp_type, 1_000, 0), now=1_000)
    assert not _is_repeat(window, "a", _record(timestamp_type, 1_601, 1), now=1_601)


def test_claimed_time_does_not_empty_the_window() -> None:
    """On a CreateTime topic the record's time is a claim, and our own clock counts."""
    window = ReplayWindow(Freshness())
    _is_repeat(window, "a", _record(TimestampType.CREATE, 1_000, 0), now=1_000)
    _is_repeat(window, "b", _record(TimestampType.CREATE, 10**9, 1), now=1_001)
    assert _is_repeat(window, "a", _record(TimestampType.CREATE, 1_000, 2), now=1_002)


def test_first_of_an_id_in_the_log_is_the_one_that_counts() -> None:
    """A later copy that was seen before a restart does not make a repeat of the first."""
    window = ReplayWindow(Freshness())
    _is_repeat(window, "a", _record(TimestampType.APPEND, 0, 6), now=0)
    assert not _is_repeat(window, "a", _record(TimestampType.APPEND, 0, 5), now=0)
    assert _is_repeat(window, "a", _record(TimestampType.APPEND, 0, 6), now=0)


def test_record_is_no_repeat_of_itself() -> None:
    """A record that comes again after a restart is judged as before."""
    window = ReplayWindow(Freshness())
    record = _record(TimestampType.APPEND, 0, 5)
    assert not _is_repeat(window, "a", record, now=0)
    assert not _is_repeat(window, "a", record, now=0)


def test_replay_memory_is_bounded() -> None:
    """The oldest id goes when there are too many."""
    window = ReplayWindow(Freshness(), max_ids=2)
    for offset, name in enumerate(("a", "b", "c")):
        _is_repeat(window, name, _record(TimestampType.APPEND, 0, offset), now=0)
    assert _is_repeat(window, "c", _record(TimestampType.APPEND, 0, 3), now=0)
    assert not _is_repeat(window, "a", _record(TimestampType.APPEND, 0, 4), now=0)


@given(
    failures=st.integers(1, 10),
    age=st.floats(0, 100),
    retry_after=st.none() | st.floats(0, 1_000),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_retries_are_bounded_and_patient(
    failures: int, age: float, retry_after: float | None, chance: float
) -> None:
    """No try too many, none too late, and none before the source said."""
    policy = RetryPolicy()
    delay = policy.delay_seconds(
        failures=failures, age_seconds=age, retry_after_seconds=retry_after, chance=chance
    )
    if delay is None:
        return
    assert failures < policy.max_attempts
    assert age + delay <= policy.max_age_seconds
    assert delay >= (retry_after or 0)
    assert delay <= max(policy.max_delay_seconds, retry_after or 0)


@pytest.mark.parametrize(("failures", "bound"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0)])
def test_retry_delay_grows(failures: int, bound: float) -> None:
    """The bound of the jitter doubles from try to try."""
    policy = RetryPolicy(max_attempts=9)
    delay = policy.delay_seconds(
        failures=failures, age_seconds=0, retry_after_seconds=None, chance=0.999999
    )
    assert delay == pytest.approx(bound, rel=1e-3)
