"""Ids are unique, fit the wire, and sort by the time they were made."""

import re

from hypothesis import given
from hypothesis import strategies as st

from producer.ids import new_id, ulid
from schemas.signing import ID_PATTERN

milliseconds = st.integers(0, 2**48 - 1)
randomness = st.integers(0, 2**80 - 1)


@given(first=st.tuples(milliseconds, randomness), second=st.tuples(milliseconds, randomness))
def test_ids_sort_as_text_the_way_their_parts_sort(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    """A listing by id is a listing by time."""
    assert (ulid(*first) < ulid(*second)) == (first < second)


def test_ids_are_valid_and_never_the_same() -> None:
    """Ten thousand in a row, many of them within one millisecond."""
    ids = {new_id() for _ in range(10_000)}

    assert len(ids) == 10_000
    assert all(re.fullmatch(ID_PATTERN, id) for id in ids)
