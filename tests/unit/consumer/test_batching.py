"""Whose turn it is on the device, and how many images at once."""

import pytest

from consumer.inference.batching import BatchSize, Step, next_step


@pytest.mark.parametrize(
    ("embeds", "captions", "can_caption", "can_move", "last", "expected"),
    [
        (0, 0, True, False, None, None),
        (1, 0, True, False, None, Step.EMBED),
        (1, 0, True, False, Step.EMBED, Step.EMBED),
        (1, 1, True, False, None, Step.EMBED),
        (1, 1, True, False, Step.EMBED, Step.CAPTION),
        (1, 1, True, False, Step.CAPTION, Step.EMBED),
        (0, 1, True, False, Step.CAPTION, Step.CAPTION),
        (0, 1, False, False, None, None),
        (1, 1, False, False, Step.EMBED, Step.EMBED),
        (1, 1, False, True, Step.EMBED, Step.MOVE),
        (1, 0, True, True, Step.EMBED, Step.MOVE),
        (1, 0, True, True, Step.MOVE, Step.EMBED),
        (0, 0, True, True, Step.EMBED, Step.MOVE),
    ],
)
def test_whose_turn_it_is(embeds, captions, can_caption, can_move, last, expected):
    """Embeddings first, then one turn of caption work; a move of BLIP is caption work."""
    step = next_step(
        embeds=embeds, captions=captions, can_caption=can_caption, can_move=can_move, last=last
    )

    assert step is expected


def test_neither_starves():
    """With both always waiting, each has every second turn."""
    last, turns = None, []
    for _ in range(10):
        last = next_step(embeds=9, captions=9, can_caption=True, can_move=False, last=last)
        turns.append(last)

    assert turns == [Step.EMBED, Step.CAPTION] * 5


def test_size_that_worked_is_remembered():
    """After memory ran out, batches are as large as the largest piece that went through."""
    size = BatchSize(32)

    size.ran_out(32, worked=8)

    assert size.limit == 8


def test_size_is_at_most_half_of_what_ran_out():
    """A batch that went through only once room was made would run out again when BLIP is back."""
    size = BatchSize(32)

    size.ran_out(32, worked=32)

    assert size.limit == 16


def test_never_below_one():
    """Even where nothing went through, one image is tried."""
    size = BatchSize(4)

    size.ran_out(2, worked=0)

    assert size.limit == 1


def test_one_image_alone_says_nothing_of_the_size():
    """An image that does not fit by itself must not make the others go one by one."""
    size = BatchSize(32)

    size.ran_out(1, worked=0)

    assert size.limit == 32


def test_grows_back_after_full_batches_in_a_row():
    """Doubles after so many full batches in a row; one that is not full starts the count anew."""
    size = BatchSize(8, grow_after=3)
    size.ran_out(8, worked=2)

    for batch in (2, 2, 1, 2, 2):
        size.worked(batch)
    assert size.limit == 2
    size.worked(2)
    assert size.limit == 4
    for _ in range(9):
        size.worked(size.limit)

    assert size.limit == 8
