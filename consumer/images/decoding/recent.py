"""The decoder's memory of recent pictures. Pure and bounded; the time is an argument."""

from collections import OrderedDict, deque
from typing import Final

REMEMBER_SECONDS: Final = 600.0
_MAX_DIGESTS: Final = 10_000
_ARRIVALS: Final = 64
_MIN_LIGHT: Final = _ARRIVALS // 4


class Digests:
    """SHA-256 digests of pictures that took too long: ten minutes each, at most 10,000."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def add(self, digest: str, now: float) -> None:
        """Remember a digest, and drop the oldest if there are too many."""
        self._until[digest] = now + REMEMBER_SECONDS
        self._until.move_to_end(digest)
        if len(self._until) > _MAX_DIGESTS:
            self._until.popitem(last=False)

    def holds(self, digest: str, now: float) -> bool:
        """Whether a digest was added within the last ten minutes."""
        return self._until.get(digest, now) > now


class Arrivals:
    """Whether slow pictures have others to hold back: a quarter of the latest 64 is not slow.

    Where nearly all pictures are slow, holding them back would protect none.
    """

    def __init__(self) -> None:
        self._latest: deque[bool] = deque(maxlen=_ARRIVALS)

    def add(self, *, is_slow: bool) -> None:
        """Count one more picture."""
        self._latest.append(is_slow)

    @property
    def are_mixed(self) -> bool:
        """Whether slow pictures would keep others waiting."""
        return len(self._latest) - sum(self._latest) >= _MIN_LIGHT
