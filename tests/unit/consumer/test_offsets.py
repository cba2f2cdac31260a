"""The watermark and what is done above it: any order of completions, crashes and restarts."""

import contextlib
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.partition.offsets import OffsetTracker
from imagelane.position import MAX_METADATA_BYTES, MAX_OPEN, ForeignMetadata, Position
from tests.effort import effort

FIRST_FORMAT = "il1:QuLUDiQ="  # offset 10, with 12 and 15 done


def test_watermark_waits_for_the_slowest() -> None:
    """The offset to commit stays below a record that is not done."""
    completion = OffsetTracker(10)
    for offset in (10, 11, 12):
        assert completion.take(offset)
    completion.done(12)
    completion.done(11)
    assert completion.position().offset == 10
    completion.done(10)
    assert completion.position() == Position.up_to(13)


def _after_restart(*, taken: int, done: Iterable[int]) -> OffsetTracker:
    """Return what goes on from the commit of a process that took so many, and did these."""
    before = OffsetTracker(0)
    for offset in range(taken):
        before.take(offset)
    for offset in done:
        before.done(offset)
    return OffsetTracker.from_position(before.position())


def test_restart_skips_what_is_done_above_the_watermark() -> None:
    """A position that was committed leads to the undone records and to no other."""
    after = _after_restart(taken=5, done=(1, 3))
    assert [offset for offset in range(5) if after.take(offset)] == [0, 2, 4]


def test_gaps_in_the_log_do_not_hold_the_watermark() -> None:
    """Offsets that the log has no record for (transaction markers) are passed over."""
    completion = OffsetTracker(0)
    for offset in (0, 2, 7):
        completion.take(offset)
        completion.done(offset)
    assert completion.position() == Position.up_to(8)


def test_record_that_comes_twice_is_taken_once() -> None:
    """A fetch that overlaps an earlier one starts nothing again."""
    completion = OffsetTracker(0)
    assert completion.take(0)
    assert not completion.take(0)


def test_what_was_done_above_stays_done_when_the_watermark_reaches_it() -> None:
    """A commit between two fetches, just below what a former process did, forgets none of that."""
    after = _after_restart(taken=5, done=(1, 2, 4))
    assert after.take(0)
    after.done(0)
    again = OffsetTracker.from_position(after.position())
    assert [offset for offset in range(1, 5) if after.take(offset)] == [3]
    assert [offset for offset in range(1, 5) if again.take(offset)] == [3]


def test_record_that_the_log_has_lost_holds_nothing() -> None:
    """Retention may remove what was to be taken again; the watermark goes on without it."""
    after = _after_restart(taken=4, done=(1, 3))
    assert after.take(4)
    after.done(4)
    assert after.position() == Position.up_to(5)


@pytest.mark.parametrize("spacing", [1, 2, 127, 128, 129, 1000, 16_383, 16_384, 50_000])
def test_whatever_is_below_the_limit_fits_the_broker(spacing: int) -> None:
    """As many open as may be, at any distance, and the last one done that still fits."""
    completion = OffsetTracker(0)
    offsets = [spacing * number for number in range(MAX_OPEN)]
    taken = [offset for offset in offsets if completion.capacity and completion.take(offset)]
    fits = [offset for offset in taken if offset < completion.offset_limit]
    assert len(fits) > 1
    completion.done(fits[-1])
    position = completion.position()
    assert len(position.metadata) <= MAX_METADATA_BYTES
    after = OffsetTracker.from_position(position)
    assert [offset for offset in fits if after.take(offset)] == fits[:-1]


def test_one_hanging_record_leaves_room_for_a_minute_of_others() -> None:
    """At 5,000 records a second, with each thousandth hanging like the first."""
    completion = OffsetTracker(0)
    for offset in range(300_000):
        assert completion.capacity
        assert offset < completion.offset_limit
        completion.take(offset)
        if offset % 1000:
            completion.done(offset)
    position = completion.position()
    assert position.offset == 0
    assert len(position.metadata) <= MAX_METADATA_BYTES
    after = OffsetTracker.from_position(position)
    assert [offset for offset in range(300_000) if after.take(offset)] == [*range(0, 300_000, 1000)]


@pytest.mark.parametrize(
    "metadata",
    ["somebody else's", "il2:", "il2:!!!!", "il2:AAAAAAAA", "il1:AAAA", "il2:" + "A" * 5000],
)
def test_foreign_metadata_is_one_named_error(metadata: str) -> None:
    """What another program left in the commit is recognised, not believed."""
    with pytest.raises(ForeignMetadata):
        OffsetTracker.from_position(Position(offset=3, metadata=metadata))


def test_metadata_of_another_offset_is_foreign() -> None:
    """An offset that was reset by hand does not take what was done above along."""
    completion = OffsetTracker(0)
    completion.take(0)
    completion.take(1)
    completion.done(1)
    with pytest.raises(ForeignMetadata):
        OffsetTracker.from_position(Position(offset=1, metadata=completion.position().metadata))


def test_first_format_is_still_read() -> None:
    """A bitmap of what is done, as consumers committed it at first: nothing of it is done again."""
    after = OffsetTracker.from_position(Position(offset=10, metadata=FIRST_FORMAT))
    assert [offset for offset in range(10, 18) if after.take(offset)] == [10, 11, 13, 14, 16, 17]
    assert after.watermark == 10


def test_position_of_ours_is_known_from_one_that_was_set_by_a_tool() -> None:
    """Every commit of a worker has metadata, the one with nothing done above it as well."""
    assert OffsetTracker(7).position() == Position.up_to(7)
    assert Position.up_to(7).is_ours
    assert OffsetTracker.from_position(Position.up_to(7)).position() == Position.up_to(7)
    assert not Position(offset=7).is_ours
    assert not Position(offset=7, metadata="by hand").is_ours


@given(st.text(max_size=60), st.integers(min_value=0, max_value=2**62))
def test_any_metadata_is_read_or_named(metadata: str, offset: int) -> None:
    """Any string gives a completion or `ForeignMetadata`, nothing else."""
    with contextlib.suppress(ForeignMetadata):
        OffsetTracker.from_position(Position(offset=offset, metadata=metadata))


@settings(max_examples=effort(300))
@given(
    st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=20).map(sorted),
    st.lists(st.sampled_from(["take", "done", "commit", "crash"]), min_size=60, max_size=120),
    st.randoms(use_true_random=False),
)
def test_every_record_is_done_once_whatever_the_order_and_the_crashes(
    log: list[int], steps: list[str], random: random.Random
) -> None:
    """Fetches, commits and crashes anywhere: each record's outcome is committed exactly once."""
    committed = Position(offset=0)
    outcomes: list[int] = []
    completion, unread, working, pending = OffsetTracker(0), list(log), [], []
    to_the_end = ["take"] * len(log) + ["done"] * len(log) + ["commit"]
    for step in [*steps, *to_the_end]:
        if step == "take" and unread:
            offset = unread.pop(0)
            working += [offset] * completion.take(offset)
        elif step == "done" and working:
            pending.append(working.pop(random.randrange(len(working))))
            completion.done(pending[-1])
        elif step == "commit":
            position = completion.position()
            assert position.offset >= committed.offset
            assert len(position.metadata) <= MAX_METADATA_BYTES
            committed, outcomes, pending = position, outcomes + pending, []
        elif step == "crash":
            completion = OffsetTracker.from_position(committed)
            unread = [offset for offset in log if offset >= committed.offset]
            working, pending = [], []
    assert sorted(outcomes) == log
