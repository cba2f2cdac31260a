"""Something that blocks is iterated beside the event loop, within bounds."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from producer.cli.background import in_thread


async def test_items_come_in_order_to_the_end() -> None:
    """More of them than may wait."""
    assert [item async for item in in_thread(range(1000))] == list(range(1000))


async def test_what_the_iteration_raises_is_raised() -> None:
    """After what came before it."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    items = in_thread(broken())

    assert await anext(items) == 1
    with pytest.raises(OSError, match="gone"):
        await anext(items)


async def test_a_source_is_not_run_ahead_of_without_bound() -> None:
    """Memory stays bounded whatever the source holds."""
    taken = itertools.count()
    far = threading.Event()

    def endless() -> Iterator[int]:
        for number in taken:
            if number > 300:
                far.set()
            yield number

    items = in_thread(endless())
    first = await anext(items)

    assert first == 0
    assert not far.wait(0.2)
    await items.aclose()
