"""Why this process is not ready, though alive: a reason for each cause.

Not ready never ends the process: an outsider can be the cause, and a restart would heal nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import structlog

log = structlog.get_logger()

REPEAT_SECONDS: Final = 60


class Readiness:
    """The causes that hold now. Whoever finds one blocks, and clears it once it is gone."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._said_at: dict[str, float] = {}  # kept over a clear: a cause may come and go
        self._said: set[str] = set()  # causes that hold, as the log has them

    @property
    def ready(self) -> bool:
        """Whether no cause holds."""
        return not self._reasons

    @property
    def reasons(self) -> Mapping[str, str]:
        """The reason of each cause that holds, for a person."""
        return MappingProxyType(self._reasons)

    def block(self, cause: str, reason: str) -> None:
        """Note that `cause` holds; the reason of an earlier call for it is replaced.

        `cause` is a stable name, with the partition where it has one: `secret:0`.
        """
        self._reasons[cause] = reason

    def clear(self, cause: str) -> None:
        """Note that `cause` does not hold, whether or not it did."""
        self._reasons.pop(cause, None)

    def report(self, now: float) -> None:
        """Log an error for each cause when it comes and once a minute; a line when it is gone."""
        for cause in self._said - self._reasons.keys():
            log.info("no longer blocked", cause=cause)
            self._said.remove(cause)
        for cause, reason in self._reasons.items():
            last = self._said_at.get(cause)
            if last is None or now - last >= REPEAT_SECONDS:
                log.error("not ready", cause=cause, reason=reason)
                self._said_at[cause] = now
                self._said.add(cause)
