"""Work on many items, some at once, in bounded memory."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def concurrently(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[T], Awaitable[R]], at_once: int
) -> AsyncGenerator[R, None]:
    """Yield the result of `work` for each item, in order of completion; raise its errors.

    At most `at_once` calls run, and no further item is taken meanwhile.
    """
    source = each(items)
    running: set[asyncio.Future[R]] = set()
    upcoming: asyncio.Future[T | None] | None = next_of(source)
    try:
        while upcoming or running:
            ready: set[asyncio.Future[Any]] = {*running}
            if upcoming and len(running) < at_once:
                ready.add(upcoming)
            await asyncio.wait(ready, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                running.remove(task)
                yield task.result()
            if upcoming in ready and upcoming.done():
                item = upcoming.result()
                if item is not None:
                    running.add(asyncio.ensure_future(work(item)))
                upcoming = next_of(source) if item is not None else None
    finally:
        left: set[asyncio.Future[Any]] = {*running}
        if upcoming:
            left.add(upcoming)
        for waiter in left:
            waiter.cancel()
        if left:
            await asyncio.wait(left)


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield the items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def next_of(items: AsyncIterator[T]) -> asyncio.Future[T | None]:
    """Return a future of the next item; of None after the last."""
    return asyncio.ensure_future(anext(items, None))
