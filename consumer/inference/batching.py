"""What the device does next, and how many jobs at once. Pure, so that it can be tried by a table.

Whatever is ready is taken at once, up to the limit: no waiting to fill a batch, for batches grow by
themselves while the device is busy. Each model has one step at a time to offer: a batch, or its own
way to the device or off it.
"""

from collections.abc import Mapping
from typing import Final

# Searches are few and short; this many steps in a row are some tenths of a second.
MAX_URGENT_IN_A_ROW: Final = 8


def best_batch(images_per_second: Mapping[int, float]) -> int:
    """Return the smallest batch whose rate is within 3 % of the best."""
    enough = 0.97 * max(images_per_second.values())
    return min(batch for batch, rate in images_per_second.items() if rate >= enough)


class Turns:
    """Whose step is next: an urgent one first, then the model whose last step is longest ago.

    So no model starves another. After `MAX_URGENT_IN_A_ROW` urgent steps one of the others runs, so
    that a flood of searches stops no picture.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}  # by model: the number of its last step
        self._steps = 0
        self._urgent_in_a_row = 0

    def choose(self, ready: Mapping[str, bool]) -> str | None:
        """Return the model whose step is next, or None when there is nothing to do.

        `ready` has the models with a step to offer, and whether it is urgent. Of two that have not
        had a turn yet the first one has it.
        """
        urgent = [name for name, is_urgent in ready.items() if is_urgent]
        others = [name for name in ready if name not in urgent]
        if urgent and others and self._urgent_in_a_row >= MAX_URGENT_IN_A_ROW:
            urgent = []
        choice = min(urgent or others, key=lambda name: self._last.get(name, 0), default=None)
        if choice is not None:
            self._steps += 1
            self._last[choice] = self._steps
            self._urgent_in_a_row = self._urgent_in_a_row + 1 if urgent else 0
        return choice


class ShortSteps:
    """How long a step may take while somebody searches; no bound while nobody does.

    An urgent step waits for the one that runs: 32 pictures of ViT-B/32 take 1.5 s on two cores, and
    8 captions of BLIP as many as 8 s. Batches of that size win a tenth or two over small ones.
    """

    def __init__(self, *, step_seconds: float = 0.2, remember_seconds: float = 60) -> None:
        self._step_seconds = step_seconds
        self._remember_seconds = remember_seconds
        self._urgent_at: float | None = None

    def urgent(self, now: float) -> None:
        """Record that urgent work came."""
        self._urgent_at = now

    def bound(self, now: float) -> float | None:
        """Return the seconds that a step may take, None where there is no bound."""
        if self._urgent_at is None or now - self._urgent_at > self._remember_seconds:
            return None
        return self._step_seconds


class BatchSize:
    """How many jobs go into one batch: at most `most`, less after the memory ran out.

    Remembers the size that worked, and doubles it after `grow_after` full batches in a row.
    """

    def __init__(self, most: int, *, grow_after: int = 32) -> None:
        self.limit = most
        self._most = most
        self._seconds_per_job: float | None = None
        self._grow_after = grow_after
        self._full_in_a_row = 0

    def within(self, seconds: float | None) -> int:
        """Return how many jobs fit into `seconds`, going by the last batch; one at least."""
        if seconds is None or not self._seconds_per_job:
            return self.limit
        return max(1, min(self.limit, int(seconds / self._seconds_per_job)))

    def took(self, batch: int, seconds: float) -> None:
        """Record how long a batch took."""
        self._seconds_per_job = seconds / batch

    def ran_out(self, batch: int, *, worked: int) -> None:
        """Record that memory ran out in a batch of `batch`; pieces of up to `worked` went through.

        One job alone says nothing about the size of batches.
        """
        if batch > 1:
            self.limit = max(1, min(worked, batch // 2))
            self._full_in_a_row = 0

    def worked(self, batch: int) -> None:
        """Record that a batch of `batch` jobs went through whole."""
        self._full_in_a_row = self._full_in_a_row + 1 if batch >= self.limit else 0
        if self._full_in_a_row >= self._grow_after:
            self.limit = min(self._most, self.limit * 2)
            self._full_in_a_row = 0
