"""Of two results of an id the later time of signing holds, then the later place."""

from hypothesis import given
from hypothesis import strategies as st

from producer.results import LatestResults

ranks = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 5))


def take(latest: LatestResults, rank: tuple[int, int, int], id: str = "a") -> bool:
    signed_at, partition, offset = rank
    value = b"%d %d" % (partition, offset)
    return latest.take(id, signed_at=signed_at, partition=partition, offset=offset, value=value)


@given(st.lists(ranks, min_size=1))
def test_whoever_upserts_ends_with_the_latest(arrived: list[tuple[int, int, int]]) -> None:
    """In whatever order they came, and each at most once."""
    latest = LatestResults()

    taken = [rank for rank in arrived if take(latest, rank)]

    assert taken == sorted(set(taken))
    assert taken[-1] == max(arrived)


def test_a_copy_says_nothing_new() -> None:
    """The same second and the same value, at a later place."""
    latest = LatestResults()

    assert latest.take("a", signed_at=1, partition=0, offset=0, value=b"x")
    assert not latest.take("a", signed_at=1, partition=0, offset=9, value=b"x")
    assert latest.take("a", signed_at=1, partition=0, offset=9, value=b"y")


def test_ids_do_not_disturb_each_other() -> None:
    """Each has its own."""
    latest = LatestResults()

    assert take(latest, (2, 0, 0), "a")
    assert take(latest, (1, 0, 1), "b")
    assert not take(latest, (1, 0, 2), "a")


def test_memory_is_bounded() -> None:
    """The id that came longest ago is forgotten first."""
    latest = LatestResults(max_ids=2)
    for id in ("a", "b", "a", "c"):
        latest.take(id, signed_at=1, partition=0, offset=ord(id) if id != "a" else 0)

    assert not take(latest, (0, 0, 0), "c")
    assert take(latest, (0, 0, 0), "a")
