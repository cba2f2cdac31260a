"""The shutdown of the process: everything is closed within one bound, or given up."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

import structlog

from consumer.runtime.exit_timer import ExitTimer

log = structlog.get_logger()

# After the time to finish: the last commit has 0.6 s and its cancellation as long; at 1.5 s
# everything is closed or given up; at 2 s the process ends, even if it hangs.
COMMIT_SECONDS: Final = 0.6
CLOSE_SECONDS: Final = 1.5
END_SECONDS: Final = 2.0
ERROR_SECONDS: Final = 5.0  # the time to finish after an error, which is logged at the end
STEP_SECONDS: Final = 3.0  # the most that one context may take to close

T = TypeVar("T")


class Shutdown:
    """The time left, once the shutdown has begun."""

    def __init__(self, *, is_json: bool = False) -> None:
        self._timer = ExitTimer("what was open could not be closed in time", is_json=is_json)
        self._finish_by: float | None = None

    def begin(self, finish_seconds: float = ERROR_SECONDS) -> None:
        """Begin; work may go on for `finish_seconds`. Only the first call counts.

        Signal handlers call this, so it may interrupt any other call of the thread.
        """
        if self._finish_by is None:
            self._finish_by = time.monotonic() + finish_seconds
            self._timer.set(finish_seconds + END_SECONDS)

    @property
    def finish_seconds(self) -> float:
        """The time left to finish the records in flight."""
        return self._left(0)

    @asynccontextmanager
    async def bound(self, name: str, context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Enter a context; leave it within the time left, or give it up."""
        opened = await context.__aenter__()
        try:
            yield opened
        finally:
            self.begin()
            leaving = asyncio.ensure_future(context.__aexit__(None, None, None))
            seconds = min(STEP_SECONDS, self._left(CLOSE_SECONDS))
            done, _ = await asyncio.wait({leaving}, timeout=seconds)
            if not done:
                log.warning("given up", what=name, reason=f"not closed in {seconds:.1f} s")
            elif not leaving.cancelled() and (error := leaving.exception()):
                # Not raised: it would hide why the process ends.
                log.warning("given up", what=name, reason=repr(error))

    def _left(self, more_seconds: float) -> float:
        assert self._finish_by is not None, "the shutdown has not begun"
        return max(0.0, self._finish_by + more_seconds - time.monotonic())
