"""When to try a fetch again: exponential, with full jitter, bounded. Pure: chance is an argument.

Full jitter: the delay is drawn evenly from zero to the exponential bound, which spreads many
retries best (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """At most `max_attempts` tries, none started `max_age_seconds` after the first failure."""

    max_attempts: int = 4
    base_seconds: float = 0.5
    max_delay_seconds: float = 20.0
    max_age_seconds: float = 60.0

    def delay_seconds(
        self, *, failures: int, age_seconds: float, retry_after_seconds: float | None, chance: float
    ) -> float | None:
        """Return how long to wait after `failures` of them, or None to give up.

        `chance` is drawn evenly from [0, 1). A source that asks for more patience than there is
        left is given up at once.
        """
        bound = min(self.max_delay_seconds, self.base_seconds * 2 ** max(0, failures - 1))
        delay: float = max(bound * chance, retry_after_seconds or 0.0)
        if failures >= self.max_attempts or age_seconds + delay > self.max_age_seconds:
            return None
        return delay
