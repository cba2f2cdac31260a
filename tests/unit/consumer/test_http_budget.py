"""Memory of fetches: what was read is held and little more, and holds that grow do not deadlock."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Failed
from consumer.images.byte_budget import ByteBudget
from tests import hostile_http as hostile
from tests.fakes import fetching
from tests.hostile_http import IMAGE, MAX_BYTES, answer, opened, raw, serving

FIRST = 65_536


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_silent_host_holds_nothing_and_one_that_trickles_little() -> None:
    """Whatever length was promised: a first step, then twice what came."""
    does = {"/silent": hostile.silent, "/trickle": hostile.trickle}
    budget = ByteBudget(10**9)
    async with (
        serving(does) as server,
        opened(server) as source,
        asyncio.TaskGroup() as tasks,
    ):

        async def fetch(path: str) -> None:
            async with fetching(
                source, f"http://image.test:{server.port}{path}", MAX_BYTES, budget
            ):
                pass

        silent, trickling = (
            tasks.create_task(fetch("/silent")),
            tasks.create_task(fetch("/trickle")),
        )
        while len(server.heads) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert budget.held_bytes == FIRST
        silent.cancel()
        trickling.cancel()
    assert budget.held_bytes == 0


@pytest.mark.parametrize("byte_length", [0, 1, FIRST - 1, FIRST, FIRST + 1, MAX_BYTES])
@pytest.mark.parametrize("says", [True, False])
async def test_what_is_held_at_the_end_is_what_came(byte_length: int, says: bool) -> None:
    """No more and no less, whether the length was said or not."""
    body = bytes(byte_length)
    does = {"/a": answer(body) if says else raw(hostile.head() + body)}
    budget = ByteBudget(10**9)
    async with serving(does) as server, opened(server) as source:
        uri = f"http://image.test:{server.port}/a"
        async with fetching(source, uri, MAX_BYTES, budget) as data:
            assert data == body
            assert budget.held_bytes == byte_length


async def test_slow_body_is_given_up_for_its_speed() -> None:
    """Long before the deadlines, and with a reason that says so."""
    async with (
        serving({"/a": hostile.trickle}) as server,
        opened(server, fetch_grace_seconds=0.2) as source,
    ):
        uri = f"http://image.test:{server.port}/a"
        with pytest.raises(Failed, match="too slowly"):
            async with asyncio.timeout(50), fetching(source, uri, MAX_BYTES, ByteBudget(10**9)):
                pass


async def test_waiting_for_memory_counts_in_no_deadline() -> None:
    """A host is not blamed for what others hold."""
    budget = ByteBudget(len(IMAGE) + 1)
    async with serving() as server, opened(server, fetch_total_seconds=0.3) as source:

        async def fetch() -> bytes:
            uri = f"http://image.test:{server.port}/a"
            async with fetching(source, uri, MAX_BYTES, budget) as data:
                return data

        async with budget.reserve(2):
            pending = asyncio.create_task(fetch())
            await asyncio.sleep(0.4)
            assert not pending.done()
        assert await pending == IMAGE


async def test_budget_smaller_than_its_images_still_lets_them_through() -> None:
    """Many at once, each larger than what is left for it: one after the other they finish."""
    body = bytes(MAX_BYTES)
    budget = ByteBudget(MAX_BYTES)
    async with serving({"/a": raw(hostile.head() + body)}) as server, opened(server) as source:
        most = 0

        async def fetch() -> None:
            nonlocal most
            uri = f"http://image.test:{server.port}/a"
            async with fetching(source, uri, MAX_BYTES, budget) as data:
                most = max(most, budget.held_bytes)
                assert data == body

        async with asyncio.timeout(20):
            await asyncio.gather(*(fetch() for _ in range(20)))
    assert budget.held_bytes == 0
    assert most <= 2 * MAX_BYTES + 1


async def test_growing_goes_before_arriving() -> None:
    """Who is in already finishes first."""
    budget = ByteBudget(10)
    async with AsyncExitStack() as first, AsyncExitStack() as last, budget.reserve(4) as growing:
        await first.enter_async_context(budget.reserve(5))
        arriving = asyncio.create_task(last.enter_async_context(budget.reserve(3)))
        grown = asyncio.create_task(growing.resize(7))
        await _settle()
        assert not arriving.done()
        assert not grown.done()
        await first.aclose()
        await _settle()
        assert grown.done()
        assert arriving.done()
        assert budget.held_bytes == 10


async def test_record_that_grows_goes_before_one_that_arrives() -> None:
    """A record's room for pixels keeps to that order, though the other asked first."""
    budget = ByteBudget(10)
    async with (
        AsyncExitStack() as first,
        AsyncExitStack() as last,
        budget.reserve(3, kept_bytes=1) as growing,
    ):
        await first.enter_async_context(budget.reserve(5))
        arriving = asyncio.create_task(last.enter_async_context(budget.reserve(5, kept_bytes=1)))
        await _settle()
        grown = asyncio.create_task(growing.resize(9))
        await _settle()
        await first.aclose()
        await _settle()
        assert grown.done()
        assert not arriving.done()
        await growing.resize(3)
        await arriving
        assert budget.held_bytes == 10


async def test_cancelled_growth_takes_nothing() -> None:
    """Those behind it go on as if it had not been."""
    budget = ByteBudget(10)
    async with budget.reserve(6) as one, budget.reserve(2) as other, budget.reserve(1):
        waiting = asyncio.create_task(one.resize(9))
        behind = asyncio.create_task(other.resize(3))
        await _settle()
        assert not behind.done()
        waiting.cancel()
        await behind
        assert budget.held_bytes == 10
    assert budget.held_bytes == 0


async def test_cancelled_growth_favours_nobody() -> None:
    """Who gave up waiting may go on and leave, so nobody need be let in above the limit."""
    budget = ByteBudget(10)
    async with budget.reserve(4) as one, budget.reserve(4) as other:
        waiting = asyncio.create_task(one.resize(7))
        await _settle()
        waiting.cancel()
        await _settle()
        growing = asyncio.create_task(other.resize(7))
        await _settle()
        assert not growing.done()
        await one.resize(3)
        await growing


async def test_growth_above_the_limit_ends_with_the_try() -> None:
    """A download that broke holds nothing and favours nobody: the next one goes on."""
    budget = ByteBudget(10)
    async with budget.reserve(4) as broken, budget.reserve(4) as other:
        broke = asyncio.create_task(broken.resize(12))
        waiting = asyncio.create_task(other.resize(12))
        await broke
        await broken.resize(0)
        async with asyncio.timeout(1):
            await waiting
        assert budget.held_bytes == 12


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=12),
    st.integers(1, 20),
    st.lists(st.integers(0, 11), max_size=3),
)
def test_any_holds_finish_within_the_limit_and_one_image(
    steps: list[list[int]], limit: int, cancelled: list[int]
) -> None:
    """However they grow, and whoever is cancelled: all end, and one at most is above the limit."""

    async def run() -> None:
        budget = ByteBudget(limit)
        largest = max(sum(sizes) for sizes in steps)

        async def image(sizes: list[int]) -> None:
            async with budget.reserve() as held:
                for size in (*sizes, -sum(sizes), *sizes):  # a try that broke, and another
                    await held.resize(held.held_bytes + size)
                    assert budget.held_bytes <= limit + largest
                    await asyncio.sleep(0)
                await held.resize(held.held_bytes // 2)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(image(sizes)) for sizes in steps]
        await asyncio.sleep(0)
        for index in cancelled:
            tasks[index % len(tasks)].cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert budget.held_bytes == 0
        async with asyncio.timeout(1), budget.reserve(limit):
            pass

    asyncio.run(run())
