"""Which message ids a partition had inside the replay window. Pure: time is the log's own."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPolicy:
    """How long an id is remembered, in seconds of log time, and how many at most.

    Two copies of one signature are both fresh if each was appended within the freshness window
    before or after the signing: twice that window covers every pair.
    """

    window_seconds: int
    max_ids: int = 1_000_000


class ReplayWindow:
    """The ids of one partition, oldest first; memory is bounded by `max_ids`."""

    def __init__(self, policy: ReplayPolicy) -> None:
        self._policy = policy
        self._seen: OrderedDict[str, int] = OrderedDict()

    def is_repeat(self, message_id: str, timestamp_ms: int) -> bool:
        """Tell whether the id was seen inside the window, and remember it if not."""
        self._forget(timestamp_ms - self._policy.window_seconds * 1000)
        if message_id in self._seen:
            return True
        self._seen[message_id] = timestamp_ms
        return False

    def _forget(self, before_ms: int) -> None:
        while self._seen:
            message_id, timestamp_ms = next(iter(self._seen.items()))
            if timestamp_ms >= before_ms and len(self._seen) < self._policy.max_ids:
                return
            del self._seen[message_id]
