"""The message ids of a partition inside the replay window. Pure: the time is an argument."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas import Freshness, Record

MAX_IDS: Final = 1_000_000  # some 300 MB; 20 minutes at 800 records a second


class ReplayEntry(NamedTuple):
    """The replay entry of a verified record. `clock` is that of `Freshness`, in Unix seconds."""

    id: str
    offset: int
    clock: float
    window_start: float  # a repeat of an entry with an earlier clock would be stale


class ReplayWindow:
    """The ids of one partition, oldest first; memory is bounded by `max_ids`.

    Two copies of one signature can be up to two freshness windows apart and both be fresh, so ids
    are kept that long. Of the records with one id only the first in the log is no repeat, in
    whatever order they are processed.
    """

    def __init__(self, freshness: Freshness, max_ids: int = MAX_IDS) -> None:
        self._freshness = freshness
        self._max_ids = max_ids
        self._clocks: OrderedDict[str, tuple[float, int]] = OrderedDict()  # clock, offset

    def entry(self, message_id: str, record: Record, now: float) -> ReplayEntry:
        """Return the entry of a record, without adding it."""
        clock, window_seconds = self._freshness.clock(record, now)
        return ReplayEntry(message_id, record.offset, clock, clock - 2 * window_seconds)

    def is_repeat(self, seen: ReplayEntry) -> bool:
        """Return True if an earlier record in the window has the id; add the entry if not."""
        self._forget(seen.window_start)
        _, first = self._clocks.get(seen.id, (0.0, seen.offset))
        if first < seen.offset:
            return True
        self._clocks[seen.id] = seen.clock, seen.offset
        return False

    def remember(self, entries: Iterable[ReplayEntry]) -> None:
        """Add records whose outcomes were committed before this assignment, oldest first."""
        for seen in entries:
            self.is_repeat(seen)

    def _forget(self, before: float) -> None:
        while self._clocks:
            message_id, (seen_at, _) = next(iter(self._clocks.items()))
            if seen_at >= before and len(self._clocks) < self._max_ids:
                return
            del self._clocks[message_id]
