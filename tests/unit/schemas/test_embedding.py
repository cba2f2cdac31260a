"""The vector of a result, in each encoding."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Embedding
from tests.strategies import base64_of

VECTOR = [0.5, -0.25, 1e-30]


def embedding(encoding: str, data: str | tuple[float, ...], dim: int = 3) -> Embedding:
    return Embedding.model_validate(
        {"model": "m", "revision": "r", "dim": dim, "encoding": encoding, "data": data}
    )


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=600))
def test_all_encodings_give_the_same_vector(vector: list[float]) -> None:
    """Base64 of float32 in either order and JSON numbers mean the same."""
    in_base64 = embedding("base64", base64_of(vector), len(vector))
    in_numbers = embedding("float", tuple(vector), len(vector))

    big = base64.b64encode(struct.pack(f">{len(vector)}f", *vector)).decode()

    assert embedding("base64-be", big, len(vector)).vector() == in_base64.vector()
    assert in_base64.vector() == in_numbers.vector() == tuple(vector)


def test_base64_is_of_little_endian_float32_unless_it_says_so() -> None:
    """Written out, so that no helper can be wrong on both sides."""
    assert embedding("base64", "AACAPw==", dim=1).vector() == (1.0,)
    assert embedding("base64-be", "P4AAAA==", dim=1).vector() == (1.0,)


@pytest.mark.parametrize("dim", [0, 2, 4])
@pytest.mark.parametrize(
    ("encoding", "data"), [("base64", base64_of(VECTOR)), ("float", tuple(VECTOR))]
)
def test_dim_that_does_not_hold_is_an_error(
    encoding: str, data: str | tuple[float, ...], dim: int
) -> None:
    """A vector of another length than it says never reaches an index."""
    with pytest.raises(ValueError, match="3 numbers where dim says"):
        embedding(encoding, data, dim).vector()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("base64", "no base64!"),
        ("base64", "AACAPw"),
        ("base64", "AACAPw==\n"),
        ("base64", "é"),
        ("base64", base64.b64encode(struct.pack("<f", 1)[:3]).decode()),
        ("base64", (1.0,)),
        ("base64-be", (1.0,)),
        ("float", "AACAPw=="),
    ],
)
def test_data_not_in_the_encoding_named_is_an_error(
    encoding: str, data: str | tuple[float, ...]
) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError):  # noqa: PT011  # base64's and array's own messages
        embedding(encoding, data, dim=1).vector()
