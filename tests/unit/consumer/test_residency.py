"""When BLIP comes and goes: the state machine, with the time as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.inference.residency import Move, Residency, ResidencyPolicy, State

GPU = ResidencyPolicy(idle_seconds=300, host_seconds=600)
CPU = ResidencyPolicy(idle_seconds=300, host_is_device=True)


def on_device(policy: ResidencyPolicy, now: float = 0.0) -> Residency:
    """Return a BLIP that is on the device since `now`."""
    residency = Residency(policy)
    residency.loading()
    residency.loaded(now)
    residency.on_device(now)
    return residency


def test_nothing_is_loaded_before_a_caption_is_wanted() -> None:
    """Start-up and embeddings alone never load BLIP."""
    residency = Residency(GPU)

    assert residency.next_move(1e6, wanted=False) is None
    assert residency.next_change_at(wanted=False) is None


def test_way_to_the_device_and_back() -> None:
    """Load, to the device, off it after the first bound, out of memory after the second."""
    residency = Residency(GPU)
    assert residency.next_move(0, wanted=True) is Move.LOAD
    residency.loading()
    residency.loaded(2)
    assert residency.next_move(2, wanted=True) is Move.TO_DEVICE
    residency.on_device(3)
    residency.worked(10)

    assert residency.next_move(309.9, wanted=False) is None
    assert residency.next_change_at(wanted=False) == 310
    assert residency.next_move(310, wanted=False) is Move.OFFLOAD
    residency.offloaded(311)
    assert residency.next_change_at(wanted=False) == 911
    assert residency.next_move(911, wanted=False) is Move.UNLOAD
    residency.unloaded()
    assert residency.next_change_at(wanted=False) is None


def test_one_load_at_a_time() -> None:
    """While a load runs, no other move is made, however many captions are wanted."""
    residency = Residency(GPU)
    residency.loading()

    assert residency.next_move(1e6, wanted=True) is None
    assert residency.next_move(1e6, wanted=False) is None


def test_never_leaves_while_a_caption_is_wanted() -> None:
    """A caption that is being fetched or decoded holds BLIP, however long ago the last one was."""
    residency = on_device(GPU)

    assert residency.next_move(1e6, wanted=True) is None
    assert residency.next_change_at(wanted=True) is None


def test_clock_starts_at_the_end_of_the_last_caption() -> None:
    """A batch that ends late moves the moment of leaving."""
    residency = on_device(GPU)
    residency.worked(1000)

    assert residency.next_move(1299, wanted=False) is None
    assert residency.next_move(1300, wanted=False) is Move.OFFLOAD


def test_on_a_cpu_it_is_dropped_at_once() -> None:
    """Where host memory is the device's memory there is nothing between."""
    residency = on_device(CPU)

    assert residency.next_move(300, wanted=False) is Move.UNLOAD


def test_loaded_for_a_caption_that_never_came() -> None:
    """BLIP in host memory whose caption failed to be fetched leaves after the first bound."""
    residency = Residency(GPU)
    residency.loading()
    residency.loaded(5)

    assert residency.next_move(304, wanted=False) is None
    assert residency.next_move(305, wanted=False) is Move.UNLOAD


def test_zero_leaves_after_every_batch() -> None:
    """Idle bound 0: nothing wanted, nothing kept."""
    residency = on_device(ResidencyPolicy(idle_seconds=0))
    residency.worked(7)

    assert residency.next_move(7, wanted=True) is None
    assert residency.next_move(7, wanted=False) is Move.OFFLOAD


def test_never_stays() -> None:
    """Without bounds BLIP stays on the device, and once offloaded in host memory."""
    residency = on_device(ResidencyPolicy(idle_seconds=None, host_seconds=None))
    assert residency.next_move(1e9, wanted=False) is None
    assert residency.next_change_at(wanted=False) is None

    residency.offloaded(1e9)

    assert residency.next_move(2e9, wanted=False) is None


def test_failed_load_waits_longer_each_time() -> None:
    """Not tried again before a wait that doubles up to a bound, and refused with its reason."""
    policy = ResidencyPolicy(first_retry_seconds=5, longest_retry_seconds=30)
    residency, now, waits = Residency(policy), 0.0, []
    for _ in range(5):
        assert residency.next_move(now, wanted=True) is Move.LOAD
        residency.loading()
        waits.append(residency.failed(now, "no such file"))
        assert residency.unavailable_reason(now + waits[-1] - 0.1) == "no such file"
        assert residency.next_move(now + waits[-1] - 0.1, wanted=True) is None
        assert residency.next_change_at(wanted=True) == now + waits[-1]
        now += waits[-1]

    assert waits == [5, 10, 20, 30, 30]
    assert residency.unavailable_reason(now) is None


def test_success_forgets_the_failures() -> None:
    """After a load that worked the next failure waits the first time again."""
    residency = Residency(ResidencyPolicy(first_retry_seconds=5))
    residency.failed(0, "full")
    residency.failed(10, "full")
    residency.loading()
    residency.loaded(50)
    assert residency.unavailable_reason(50) is None
    residency.on_device(51)

    assert residency.failed(60, "full") == 5


@pytest.mark.parametrize(
    ("policy", "move"), [(GPU, Move.OFFLOAD), (CPU, Move.UNLOAD)], ids=["gpu", "cpu"]
)
def test_what_makes_room(policy: ResidencyPolicy, move: Move | None) -> None:
    """Room for CLIP is made by what frees the device's memory."""
    assert on_device(policy).leaving() is move


@given(
    wants=st.lists(st.tuples(st.booleans(), st.floats(0, 1000), st.booleans()), max_size=60),
    policy=st.sampled_from([GPU, CPU, ResidencyPolicy(idle_seconds=0, host_seconds=0)]),
)
def test_any_script_keeps_the_promises(
    wants: list[tuple[bool, float, bool]], policy: ResidencyPolicy
) -> None:
    """For any script: never off while wanted, one load at a time, and gone in the end."""
    residency, now = Residency(policy), 0.0
    for wanted, seconds, works in wants:
        now += seconds
        make(residency, residency.next_move(now, wanted=wanted), now, wanted=wanted, works=works)
    for _ in range(4):
        now += 1e6
        make(residency, residency.next_move(now, wanted=False), now, wanted=False, works=True)

    assert residency.state is State.UNLOADED


def make(residency: Residency, move: Move | None, now: float, *, wanted: bool, works: bool) -> None:
    """Make a move as the engine does, and check that it may be made."""
    match move:
        case Move.LOAD:
            assert wanted
            assert residency.state is State.UNLOADED
            residency.loading()
            if works:
                residency.loaded(now)
            else:
                residency.failed(now, "no")
        case Move.TO_DEVICE:
            assert wanted
            residency.on_device(now)
        case Move.OFFLOAD:
            assert not wanted
            residency.offloaded(now)
        case Move.UNLOAD:
            assert not wanted
            residency.unloaded()
