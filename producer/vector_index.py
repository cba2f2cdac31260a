"""Unit vectors in one float32 matrix, and an exact search: one product of matrix and vector.

100,000 vectors of 512 numbers take 205 MB.
"""

from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]  # shape (dim,), unit length
Key = TypeVar("Key", bound=Hashable)

_FIRST_ROWS: Final = 1024
_LENGTH_TOLERANCE: Final = 1e-2  # for float32 values in base64 and in decimal


class VectorIndex(Generic[Key]):
    """Vectors of one model by key; a key has one vector, the last one."""

    def __init__(self, dim: int) -> None:
        self._matrix: NDArray[np.float32] = np.zeros((_FIRST_ROWS, dim), np.float32)
        self._keys: list[Key | None] = []  # by row; None: the row is free
        self._rows: dict[Key, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return int(self._matrix.shape[1])

    def put(self, key: Key, vector: Sequence[float] | Vector) -> None:
        """Set the vector of a key.

        Raises:
            ValueError: it is not of this length, or no unit vector.
        """
        row_vector = np.asarray(vector, np.float32)
        if row_vector.shape != (self.dim,):
            raise ValueError(f"{row_vector.size} numbers in an index of {self.dim}")
        if not abs(float(np.linalg.norm(row_vector)) - 1) < _LENGTH_TOLERANCE:  # NaN as well
            raise ValueError("not a unit vector")
        row = self._rows.get(key)
        if row is None:
            row = self._free.pop() if self._free else self._new_row()
            self._rows[key], self._keys[row] = row, key
        self._matrix[row] = row_vector

    def remove(self, key: Key) -> None:
        """Forget the vector of a key, if it has one."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._keys[row] = None
            self._matrix[row] = 0
            self._free.append(row)

    def vector(self, key: Key) -> Vector | None:
        """Return the vector of a key, shape (dim,), or None."""
        row = self._rows.get(key)
        return None if row is None else self._matrix[row].copy()

    def nearest(self, vector: Sequence[float] | Vector, count: int) -> list[tuple[Key, float]]:
        """Return the keys with the largest cosine to `vector`, at most `count`, best first."""
        scores = self._matrix[: len(self._keys)] @ np.asarray(vector, np.float32)
        wanted = min(len(scores), count + len(self._free))  # free rows score 0, and are left out
        if not wanted:
            return []
        best = np.argpartition(scores, -wanted)[-wanted:]
        ordered = best[np.argsort(-scores[best], kind="stable")]
        found = [(self._keys[row], float(scores[row])) for row in ordered]
        return [(key, score) for key, score in found if key is not None][:count]

    def _new_row(self) -> int:
        if len(self._keys) == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._keys.append(None)
        return len(self._keys) - 1
