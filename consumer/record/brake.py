"""Stops the process before a wrong secret drains the topic into the dead letters. Pure.

A wrong secret looks exactly like 100 % forgeries, so too many refusals in a row, or too high a
share of them, mean that we may be the ones who are wrong.
"""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakePolicy:
    """The bounds; 0 takes one away."""

    max_consecutive: int = 100
    max_share: float = 0.9
    share_of_records: int = 1000


class Brake:
    """Counts refusals among the last records; one that is admitted resets the count in a row."""

    def __init__(self, policy: BrakePolicy) -> None:
        self._policy = policy
        self._consecutive = 0
        self._recent: deque[bool] = deque(maxlen=policy.share_of_records or 1)
        self._refused_in_recent = 0

    def recall(self, *, refused: bool) -> None:
        """Count a record of before this start.

        Refusals then bring the count to the edge and not over it: the first one of this start
        stops the process, before it is committed, and the first admitted record resets it.
        """
        edge = self._policy.max_consecutive - 1
        self._consecutive = min(self._consecutive + 1, edge) if refused else 0

    def note(self, *, refused: bool) -> str | None:
        """Count one record; return the reason to stop, or None to go on."""
        self._consecutive = self._consecutive + 1 if refused else 0
        if len(self._recent) == self._recent.maxlen:
            self._refused_in_recent -= self._recent[0]
        self._recent.append(refused)
        self._refused_in_recent += refused
        if 0 < self._policy.max_consecutive <= self._consecutive:
            return f"{self._consecutive} records in a row were refused"
        share = self._refused_in_recent / len(self._recent)
        full = len(self._recent) == self._policy.share_of_records
        if full and 0 < self._policy.max_share <= share:
            return f"{share:.0%} of the last {len(self._recent)} records were refused"
        return None
