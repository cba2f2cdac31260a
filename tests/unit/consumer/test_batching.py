"""Whose turn it is on the device, and how many images at once."""

from collections.abc import Mapping

from consumer.inference.batching import MAX_URGENT_IN_A_ROW, BatchSize, ShortSteps, StepOrder


def turns(ready: Mapping[str, bool], count: int) -> list[str | None]:
    """Return the first choices, with the same models always ready."""
    chosen = StepOrder()
    return [chosen.choose(ready) for _ in range(count)]


def test_nothing_to_do_is_nobodys_turn() -> None:
    """And it is no turn that anybody loses."""
    chosen = StepOrder()

    assert chosen.choose({}) is None
    assert chosen.choose({"CLIP": False}) == "CLIP"


def test_none_starves() -> None:
    """With all of them always ready, each has its turn, the first one first."""
    ready = {"CLIP": False, "CLIP text": False, "BLIP": False}

    assert turns(ready, 6) == ["CLIP", "CLIP text", "BLIP"] * 2


def test_one_alone_has_every_turn() -> None:
    """There is nobody to wait for."""
    assert turns({"BLIP": False}, 3) == ["BLIP"] * 3


def test_who_was_not_ready_has_waited_longest() -> None:
    """A model that comes in between embeddings goes next."""
    chosen = StepOrder()
    for _ in range(5):
        chosen.choose({"CLIP": False})

    both = {"CLIP": False, "BLIP": False}
    assert [chosen.choose(both) for _ in range(3)] == ["BLIP", "CLIP", "BLIP"]


def test_urgent_goes_first() -> None:
    """Whoever's turn it would be."""
    chosen = StepOrder()
    chosen.choose({"CLIP text": False})

    assert chosen.choose({"CLIP": False, "CLIP text": True}) == "CLIP text"


def test_a_flood_of_urgent_steps_stops_nobody() -> None:
    """After some of them in a row another has one turn."""
    flood = turns({"CLIP": False, "CLIP text": True}, 2 * (MAX_URGENT_IN_A_ROW + 1))

    assert flood == ([*["CLIP text"] * MAX_URGENT_IN_A_ROW, "CLIP"]) * 2


def test_urgent_ones_take_turns_among_themselves() -> None:
    """A flood of one kind does not keep another urgent one waiting."""
    assert turns({"CLIP": True, "CLIP text": True}, 4) == ["CLIP", "CLIP text"] * 2


def test_size_that_worked_is_remembered() -> None:
    """After memory ran out, batches are as large as the largest piece that went through."""
    size = BatchSize(32)

    size.ran_out(32, worked=8)

    assert size.limit == 8


def test_size_is_at_most_half_of_what_ran_out() -> None:
    """A batch that went through only once room was made would run out again when BLIP is back."""
    size = BatchSize(32)

    size.ran_out(32, worked=32)

    assert size.limit == 16


def test_never_below_one() -> None:
    """Even where nothing went through, one image is tried."""
    size = BatchSize(4)

    size.ran_out(2, worked=0)

    assert size.limit == 1


def test_one_image_alone_says_nothing_of_the_size() -> None:
    """An image that does not fit by itself must not make the others go one by one."""
    size = BatchSize(32)

    size.ran_out(1, worked=0)

    assert size.limit == 32


def test_grows_back_after_full_batches_in_a_row() -> None:
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


def test_steps_are_short_while_somebody_searches() -> None:
    """From the first urgent job on, until none has come for a while."""
    short = ShortSteps(step_seconds=0.2, remember_seconds=60)
    assert short.bound(0) is None

    short.urgent(10)

    assert [short.bound(now) for now in (10, 70, 70.1)] == [0.2, 0.2, None]


def test_short_step_has_as_many_jobs_as_the_last_one_tells() -> None:
    """At least one, at most the limit; before anything is known, the limit."""
    size = BatchSize(32)
    assert size.within(0.2) == 32

    size.took(32, 1.6)

    assert size.within(0.2) == 4
    assert size.within(0.01) == 1
    assert size.within(9) == 32
    assert size.within(None) == 32
