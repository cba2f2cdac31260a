"""Which message ids a partition had inside the replay window. Pure: the time is an argument."""

from collections import OrderedDict
from typing import Final

from schemas import Freshness, Record

MAX_IDS: Final = 1_000_000  # some 300 MB; 20 minutes at 800 records a second


class ReplayWindow:
    """The ids of one partition, oldest first; memory is bounded by `max_ids`.

    Two copies of one signature are both fresh if each came within the freshness window before or
    after the signing: twice that window, by the same clock, covers every pair. Of the records with
    one id the first in the log is the one that counts, in whatever order they are looked at.
    """

    def __init__(self, freshness: Freshness, max_ids: int = MAX_IDS) -> None:
        self._freshness = freshness
        self._max_ids = max_ids
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  # clock, offset

    def is_repeat(self, message_id: str, record: Record, now: float) -> bool:
        """Tell whether an earlier record had the id inside the window; remember it if not."""
        clock, window_seconds = self._freshness.clock(record, now)
        self._forget(clock - 2 * window_seconds)
        _, first = self._seen.get(message_id, (0.0, record.offset))
        if first < record.offset:
            return True
        self._seen[message_id] = clock, record.offset
        return False

    def _forget(self, before: float) -> None:
        while self._seen:
            message_id, (seen_at, _) = next(iter(self._seen.items()))
            if seen_at >= before and len(self._seen) < self._max_ids:
                return
            del self._seen[message_id]
