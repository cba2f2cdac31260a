"""A pause of our own event loop is no time of a host's, and fails no record for good."""

import asyncio

import pytest

from consumer.images.loop_clock import LoopClock, every_tick


def test_clock_leaves_pauses_out() -> None:
    """It goes on by a second at most between two ticks, and counts what it left out."""
    now = [100.0]
    clock = LoopClock(lambda: now[0])
    for gap, seconds, pauses in [(0.5, 0.5, 0), (0.9, 1.4, 0), (60, 2.4, 1), (0.5, 2.9, 1)]:
        now[0] += gap
        assert (clock.seconds, clock.pauses) == (pytest.approx(seconds), pauses)
        clock.tick()
        assert (clock.seconds, clock.pauses) == (pytest.approx(seconds), pauses)


async def test_action_that_fails_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not silently dead: whoever opened it gets the error."""
    monkeypatch.setattr("consumer.images.loop_clock.TICK_SECONDS", 0.001)
    called = asyncio.Event()

    def fail() -> None:
        called.set()
        raise ValueError("no")

    async def run() -> None:
        async with every_tick(fail):
            await called.wait()
            await asyncio.sleep(0)

    with pytest.raises(ValueError, match="no"):
        await run()
