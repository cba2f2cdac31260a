"""A histogram that counts many values in one call: some tens of nanoseconds a value.

prometheus-client's own takes a microsecond and a lock for each value: 10 % of a core for five
stages of 20,000 records a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

import numpy as np

SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0
)  # fmt: skip
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Distribution:
    """Counts of values by rising upper bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0

    @classmethod
    def of_sizes(cls, counts: Mapping[int, int]) -> Self:
        """Return the distribution of sizes, given how often each of them was."""
        sizes = cls(SIZES)
        sizes._add(counts.keys(), list(counts.values()))
        return sizes

    def observe(self, values: Sequence[float]) -> None:
        """Count these values."""
        if values:
            self._add(values, None)

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus' cumulative buckets: upper bounds and counts."""
        uppers = [*map(str, self._bounds.tolist()), "+Inf"]
        return list(zip(uppers, self._counts.cumsum().tolist(), strict=True))

    def _add(self, values: Iterable[float], weights: Sequence[int] | None) -> None:
        array = np.fromiter(values, np.float64)
        found = np.searchsorted(self._bounds, array)
        self._counts += np.bincount(found, weights, len(self._counts)).astype(np.int64)
        self.sum += float(array.sum() if weights is None else array @ np.array(weights, np.float64))
