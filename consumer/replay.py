"""Which message ids a partition had inside the replay window. Pure: the time is an argument."""

from collections import OrderedDict
from typing import Final

from schemas import Freshness, Record

MAX_IDS: Final = 1_000_000  # some 150 MB; 20 minutes at 800 records a second


class ReplayWindow:
    """The ids of one partition, oldest first; memory is bounded by `max_ids`.

    Two copies of one signature are both fresh if each came within the freshness window before or
    after the signing: twice that window, by the same clock, covers every pair.
    """

    def __init__(self, freshness: Freshness, max_ids: int = MAX_IDS) -> None:
        self._freshness = freshness
        self._max_ids = max_ids
        self._seen: OrderedDict[str, float] = OrderedDict()

    def is_repeat(self, message_id: str, record: Record, now: float) -> bool:
        """Tell whether the id was seen inside the window, and remember it if not."""
        clock, window_seconds = self._freshness.clock(record, now)
        self._forget(clock - 2 * window_seconds)
        if message_id in self._seen:
            return True
        self._seen[message_id] = clock
        return False

    def _forget(self, before: float) -> None:
        while self._seen:
            message_id, seen_at = next(iter(self._seen.items()))
            if seen_at >= before and len(self._seen) < self._max_ids:
                return
            del self._seen[message_id]
