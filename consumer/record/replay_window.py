"""Which message ids a partition had inside the replay window. Pure: the time is an argument."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas import Freshness, Record

MAX_IDS: Final = 1_000_000  # some 300 MB; 20 minutes at 800 records a second


class Seen(NamedTuple):
    """The id of a record that verified. `clock` is that of `Freshness`, in Unix seconds."""

    id: str
    offset: int
    clock: float
    window_start: float  # what has an earlier clock cannot be repeated any longer


class ReplayWindow:
    """The ids of one partition, oldest first; memory is bounded by `max_ids`.

    Two copies of one signature are both fresh if each came within the freshness window before or
    after the signing: twice that window, by the same clock, covers every pair. Of the records with
    one id the first in the log is the one that counts, in whatever order they are looked at.
    """

    def __init__(self, freshness: Freshness, max_ids: int = MAX_IDS) -> None:
        self._freshness = freshness
        self._max_ids = max_ids
        self._clocks: OrderedDict[str, tuple[float, int]] = OrderedDict()  # clock, offset

    def sighting(self, message_id: str, record: Record, now: float) -> Seen:
        """Return what is remembered of a record; remember nothing yet."""
        clock, window_seconds = self._freshness.clock(record, now)
        return Seen(message_id, record.offset, clock, clock - 2 * window_seconds)

    def is_repeat(self, seen: Seen) -> bool:
        """Tell whether an earlier record had the id inside the window; remember it if not."""
        self._forget(seen.window_start)
        _, first = self._clocks.get(seen.id, (0.0, seen.offset))
        if first < seen.offset:
            return True
        self._clocks[seen.id] = seen.clock, seen.offset
        return False

    def remember(self, sightings: Iterable[Seen]) -> None:
        """Note records whose outcomes were committed before this assignment, oldest first."""
        for seen in sightings:
            self.is_repeat(seen)

    def _forget(self, before: float) -> None:
        while self._clocks:
            message_id, (seen_at, _) = next(iter(self._clocks.items()))
            if seen_at >= before and len(self._clocks) < self._max_ids:
                return
            del self._clocks[message_id]
