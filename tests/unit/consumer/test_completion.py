"""The watermark and what is done above it: any order of completions, crashes and restarts."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.completion import (
    MAX_METADATA_BYTES,
    MAX_SPAN,
    Completion,
    ForeignMetadata,
    Position,
)


def test_watermark_waits_for_the_slowest():
    """The offset to commit stays below a record that is not done."""
    completion = Completion(10)
    for offset in (10, 11, 12):
        assert completion.take(offset)
    completion.done(12)
    completion.done(11)
    assert completion.position().offset == 10
    completion.done(10)
    assert completion.position() == Position(offset=13)


def test_restart_skips_what_is_done_above_the_watermark():
    """A position that was committed leads to the undone records and to no other."""
    before = Completion(0)
    for offset in range(5):
        before.take(offset)
    before.done(1)
    before.done(3)
    after = Completion.from_position(before.position())
    assert [offset for offset in range(5) if after.take(offset)] == [0, 2, 4]


def test_gaps_in_the_log_do_not_hold_the_watermark():
    """Offsets that the log has no record for (transaction markers) are passed over."""
    completion = Completion(0)
    for offset in (0, 2, 7):
        completion.take(offset)
        completion.done(offset)
    assert completion.position() == Position(offset=8)


def test_record_that_comes_twice_is_taken_once():
    """A fetch that overlaps an earlier one starts nothing again."""
    completion = Completion(0)
    assert completion.take(0)
    assert not completion.take(0)


def test_longest_bitmap_fits_the_broker():
    """With room used up, the metadata is still within the broker's limit."""
    completion = Completion(0)
    for offset in range(MAX_SPAN):
        completion.take(offset)
        if offset:
            completion.done(offset)
    assert completion.room == 0
    position = completion.position()
    assert position.offset == 0
    assert len(position.metadata) <= MAX_METADATA_BYTES
    assert Completion.from_position(position).take(0)


@pytest.mark.parametrize(
    "metadata",
    ["somebody else's", "il1:", "il1:!!!!", "il1:AAAAAAAA", "il2:AAAA", "il1:" + "A" * 5000],
)
def test_foreign_metadata_is_one_named_error(metadata):
    """What another program left in the commit is recognised, not believed."""
    with pytest.raises(ForeignMetadata):
        Completion.from_position(Position(offset=3, metadata=metadata))


def test_metadata_of_another_offset_is_foreign():
    """An offset that was reset by hand does not take the old bitmap along."""
    completion = Completion(0)
    completion.take(0)
    completion.take(1)
    completion.done(1)
    with pytest.raises(ForeignMetadata):
        Completion.from_position(Position(offset=1, metadata=completion.position().metadata))


@given(st.text(max_size=60), st.integers(min_value=0, max_value=2**62))
def test_any_metadata_is_read_or_named(metadata, offset):
    """Any string gives a completion or `ForeignMetadata`, nothing else."""
    with contextlib.suppress(ForeignMetadata):
        Completion.from_position(Position(offset=offset, metadata=metadata))


@given(st.data())
def test_every_record_is_done_once_whatever_the_order_and_the_crashes(data):
    """Commits and crashes anywhere: each record's outcome is committed exactly once."""
    log = data.draw(st.lists(st.integers(0, 300), unique=True, min_size=1, max_size=40).map(sorted))
    committed, outcomes = Position(offset=0), []
    while committed.offset <= log[-1]:
        completion = Completion.from_position(committed)
        taken = [offset for offset in log if completion.take(offset)]
        order = data.draw(st.permutations(taken))
        # Where nothing is left but what was done above, there is still the lowest one open.
        assert taken
        survives = data.draw(st.integers(min_value=1, max_value=len(order)))
        pending: list[int] = []
        for offset in order[:survives]:
            completion.done(offset)
            pending.append(offset)
            if data.draw(st.booleans()) or len(pending) == len(taken):
                position = completion.position()
                assert position.offset >= committed.offset
                assert len(position.metadata) <= MAX_METADATA_BYTES
                committed, outcomes, pending = position, outcomes + pending, []
    assert sorted(outcomes) == log
