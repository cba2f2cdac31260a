"""How long the end of the process may take: all that is open is closed within one bound."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

import structlog

from consumer.runtime.exit_timer import ExitTimer

log = structlog.get_logger()

COMMIT_SECONDS: Final = 0.6  # after the time to finish: the last commit, and to give it up likewise
CLOSE_SECONDS: Final = 1.5  # after the time to finish: everything is closed or given up
END_SECONDS: Final = 2.0  # likewise: the process ends, whatever stands still
ERROR_SECONDS: Final = 5.0  # the time to finish after an error: why it ends must still be said
STEP_SECONDS: Final = 3.0  # the most that one thing may take of it

T = TypeVar("T")


class Closing:
    """The time that is left, once the end has begun."""

    def __init__(self, *, is_json: bool = False) -> None:
        self._timer = ExitTimer("what was open could not be closed in time", is_json=is_json)
        self._finish_by: float | None = None

    def begin(self, finish_seconds: float = ERROR_SECONDS) -> None:
        """Let the end begin: work may go on for so long. The first call is the one that counts.

        It may interrupt any other call of this thread, as a signal handler does.
        """
        if self._finish_by is None:
            self._finish_by = time.monotonic() + finish_seconds
            self._timer.set(finish_seconds + END_SECONDS)

    @property
    def finish_seconds(self) -> float:
        """The time that is left to finish what is in flight."""
        return self._left(0)

    @asynccontextmanager
    async def bound(self, name: str, context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Enter a context; leave it within the time that is left then, or give it up."""
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
                # Not raised: it would hide why the process ends, and nothing depends on it.
                log.warning("given up", what=name, reason=repr(error))

    def _left(self, more_seconds: float) -> float:
        assert self._finish_by is not None, "the end has not begun"
        return max(0.0, self._finish_by + more_seconds - time.monotonic())
