"""The reasons why a live process is not ready, one for each cause.

They never end the process: an outsider can be the cause, and a restart would not help.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import structlog

log = structlog.get_logger()

REPEAT_SECONDS: Final = 60


class Readiness:
    """The causes that hold now; the code that finds a cause also clears it."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._logged_at: dict[str, float] = {}  # outlasts a clear: a cause may come and go
        self._logged: set[str] = set()  # causes that hold by the log

    @property
    def reasons(self) -> Mapping[str, str]:
        """The reasons by cause, for a person."""
        return MappingProxyType(self._reasons)

    def block(self, cause: str, reason: str) -> None:
        """Note that `cause` holds; `reason` replaces that of an earlier call.

        `cause` is a stable name, with the partition if it has one: `transaction:ingest-0`.
        """
        self._reasons[cause] = reason

    def clear(self, cause: str) -> None:
        """Note that `cause` does not hold, whether or not it did."""
        self._reasons.pop(cause, None)

    def report(self, now: float) -> None:
        """Log an error for each new cause and once a minute after; a line when it is gone."""
        for cause in self._logged - self._reasons.keys():
            log.info("no longer blocked", cause=cause)
            self._logged.remove(cause)
        for cause, reason in self._reasons.items():
            if now - self._logged_at.get(cause, float("-inf")) >= REPEAT_SECONDS:
                log.error("not ready", cause=cause, reason=reason)
                self._logged_at[cause] = now
                self._logged.add(cause)
