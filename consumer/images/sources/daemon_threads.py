"""Threads for a file system that may hang: a call that does not return costs its thread alone.

A read from a network file system whose server is gone cannot be cancelled. asyncio's default
executor has few threads, and the end of the process waits for them. These are daemon threads: a new
one starts only where all others are busy, and each is kept for the next call. A call over its
deadline gives its place back. After `max_hung` such calls, no call starts until one returns.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Jobs = SimpleQueue[Callable[[], None]]


class DaemonThreads:
    """Runs at most `at_once` calls at once, besides those that hang."""

    def __init__(self, at_once: int, max_hung: int) -> None:
        self._max_hung = max_hung
        self._places = asyncio.Semaphore(at_once)
        self._idle: list[_Jobs] = []
        self._hung = 0

    def place(self) -> AbstractAsyncContextManager[None]:
        """Wait for one of the places; waiting counts in no deadline."""
        return self._places

    async def run(self, call: Callable[[], T], seconds: float) -> T:
        """Return or raise as `call` does; the caller holds a place.

        Raises:
            TimeoutError: `call` is over its deadline, or too many calls hang.
        """
        if self._hung >= self._max_hung:
            raise TimeoutError
        result = self._begin(call)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(result)
        finally:
            if not result.done():
                self._hung += 1
                result.add_done_callback(self._returned)

    def _begin(self, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if self._idle:
            jobs = self._idle.pop()
        else:
            jobs = SimpleQueue()
            Thread(target=_work, args=(jobs,), daemon=True).start()

        def finish(value: Any, error: BaseException | None) -> None:
            self._idle.append(jobs)
            if error:
                result.set_exception(error)
            else:
                result.set_result(value)

        def job() -> None:
            try:
                value, error = call(), None
            except BaseException as exc:  # noqa: BLE001 - the caller gets it
                value, error = None, exc
            with suppress(RuntimeError):  # the loop is closed, and with it the caller gone
                loop.call_soon_threadsafe(finish, value, error)

        jobs.put(job)
        return result

    def _returned(self, result: asyncio.Future[Any]) -> None:
        self._hung -= 1
        result.exception()  # marked as seen: no task awaits it


def _work(jobs: _Jobs) -> None:
    while True:
        jobs.get()()
