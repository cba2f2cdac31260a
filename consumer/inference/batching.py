"""Which step the device runs next, and how many jobs are in it. Pure: time is an argument.

No step waits to fill its batch: jobs pile up while the device is busy, so batches grow under load.
Each model offers one step at a time: a batch, or a move of its weights.
"""

from collections.abc import Mapping
from typing import Final

# Searches are few and short; this many steps in a row are some tenths of a second.
MAX_URGENT_IN_A_ROW: Final = 8
# The GPU thread has a second batch where one takes no longer: the loop's answers take milliseconds.
AHEAD_SECONDS: Final = 0.05


def best_batch(images_per_second: Mapping[int, float]) -> int:
    """Return the smallest batch whose rate is within 3 % of the best."""
    enough = 0.97 * max(images_per_second.values())
    return min(batch for batch, rate in images_per_second.items() if rate >= enough)


class StepOrder:
    """Picks the model whose step runs next: an urgent one, then the least recently served.

    No model starves another. After `MAX_URGENT_IN_A_ROW` urgent steps another model's step runs, so
    a flood of searches stops no picture.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}  # by model: the number of its last step
        self._steps = 0
        self._urgent_in_a_row = 0

    def choose(self, ready: Mapping[str, bool]) -> str | None:
        """Return the model whose step is next; None without one.

        `ready` says of each model with a step whether it is urgent. The first of two models without
        an earlier step wins.
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
    """Bounds the seconds of a step while searches come.

    An urgent step waits for the running one: 32 pictures of ViT-B/32 take 1.5 s on two cores, and 8
    captions of BLIP up to 8 s. Batches of that size gain 10 to 20 % over small ones.
    """

    def __init__(self, *, step_seconds: float = 0.2, remember_seconds: float = 60) -> None:
        self._step_seconds = step_seconds
        self._remember_seconds = remember_seconds
        self._urgent_at: float | None = None

    def urgent(self, now: float) -> None:
        """Record that urgent work came."""
        self._urgent_at = now

    def bound(self, now: float) -> float | None:
        """Return the seconds that a step may take; None without a bound."""
        if self._urgent_at is None or now - self._urgent_at > self._remember_seconds:
            return None
        return self._step_seconds


class BatchSize:
    """How many jobs go into one batch: at most `most`, fewer after memory ran out.

    Keeps the size that worked, and doubles it after `grow_after` full batches in a row.
    """

    def __init__(self, most: int, *, grow_after: int = 32) -> None:
        self.limit = most
        self._most = most
        self._seconds_per_job: float | None = None
        self._grow_after = grow_after
        self._full_in_a_row = 0

    def within(self, seconds: float | None) -> int:
        """Return how many jobs fit into `seconds` at the pace of the last batch; at least one."""
        if seconds is None or not self._seconds_per_job:
            return self.limit
        return max(1, min(self.limit, int(seconds / self._seconds_per_job)))

    @property
    def is_short(self) -> bool:
        """Whether a full batch takes no longer than `AHEAD_SECONDS`, by the last one."""
        pace = self._seconds_per_job
        return pace is not None and pace * self.limit <= AHEAD_SECONDS

    def took(self, batch: int, seconds: float) -> None:
        """Record how long a batch took."""
        self._seconds_per_job = seconds / batch

    def ran_out(self, batch: int, *, worked: int) -> None:
        """Record that memory ran out in a batch of `batch`; its largest working piece had `worked`.

        A batch of one changes nothing: no limit is smaller.
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
