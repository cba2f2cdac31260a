"""The matrix of vectors: what is nearest is what a plain loop finds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.vector_index import VectorIndex
from tests.effort import effort

DIM = 8


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


@settings(max_examples=effort(60))
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10_000), st.booleans()), max_size=60),
    st.integers(0, 10_000),
    st.integers(1, 10),
)
def test_nearest_is_what_a_loop_over_all_finds(
    changes: list[tuple[int, int, bool]], asked: int, count: int
) -> None:
    """Whatever was put, replaced and removed before."""
    index: VectorIndex[int] = VectorIndex(DIM)
    plain: dict[int, Any] = {}
    for key, seed, remove in changes:
        if remove:
            index.remove(key)
            plain.pop(key, None)
        else:
            index.put(key, unit(seed))
            plain[key] = unit(seed)
    found = index.nearest(unit(asked), count)
    scores = sorted((float(vector @ unit(asked)) for vector in plain.values()), reverse=True)
    assert len(index) == len(plain)
    assert [score for _, score in found] == pytest.approx(scores[:count], abs=1e-5)
    for key, score in found:
        assert score == pytest.approx(float(plain[key] @ unit(asked)), abs=1e-5)


def test_it_grows() -> None:
    """Beyond its first rows, with all that was there."""
    index: VectorIndex[int] = VectorIndex(DIM)
    for key in range(3000):
        index.put(key, unit(key))
    assert [key for key, _ in index.nearest(unit(2500), 1)] == [2500]
    assert [key for key, _ in index.nearest(unit(5), 1)] == [5]


@pytest.mark.parametrize("wrong", [[1.0], [2.0] + [0.0] * 7, [float("nan")] * 8, [0.0] * 8])
def test_what_is_no_unit_vector_is_refused(wrong: Any) -> None:
    """A vector of another length, or one that would be nearest to everything."""
    with pytest.raises(ValueError, match=r"numbers in an index|not a unit vector"):
        VectorIndex[str](DIM).put("a", wrong)
