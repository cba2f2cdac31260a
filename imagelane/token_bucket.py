"""A rate with a burst. Pure: the time is an argument."""


class TokenBucket:
    """Holds `burst` tokens, full at the start, and gains `per_second`."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = self._left = burst
        self._filled_at: float | None = None

    def take(self, count: float, now: float) -> bool:
        """Take the tokens, or none if fewer are left; `now` is in seconds, and may jump back."""
        if self._filled_at is not None and now > self._filled_at:
            grown = (now - self._filled_at) * self._per_second
            self._left = min(self._burst, self._left + grown)
        self._filled_at = now
        if count > self._left:
            return False
        self._left -= count
        return True

    def spend(self, count: float) -> None:
        """Take tokens, or all that are left."""
        self._left = max(0.0, self._left - count)
