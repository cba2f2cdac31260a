"""What counts as stuck, and what does not."""

import asyncio

import pytest

from consumer.runtime.readiness import Readiness
from consumer.runtime.watchdog import Bounds, Snapshot, Watchdog, watch
from imagelane.exits import ExitCode, FatalError

BOUNDS = Bounds(join_seconds=60, progress_seconds=180, loop_seconds=10, end_seconds=30)
IDLE = Snapshot(joined=True, in_flight=0, commits=0)


def _looks(watchdog, sights):
    """Look once a second; return the faults."""
    return [watchdog.look(snapshot, now) for now, snapshot in enumerate(sights, start=1)]


def test_idle_member_is_live():
    """A topic without traffic, or a spare member without partitions, is no fault."""
    assert set(_looks(Watchdog(BOUNDS, 0), [IDLE] * 1000)) == {None}


def test_member_outside_the_group_is_not_live_and_then_ends():
    """Not being in the group has a bound, and being not live has another."""
    watchdog, outside = Watchdog(BOUNDS, 0), Snapshot(joined=False, in_flight=0, commits=0)
    faults = _looks(watchdog, [outside] * 91)
    assert faults[59] is None
    assert "not in the group" in faults[60]
    with pytest.raises(FatalError) as caught:
        watchdog.look(outside, 92)
    assert caught.value.code is ExitCode.STUCK


def test_work_without_a_commit_is_not_live():
    """Records in flight must lead to commits."""
    faults = _looks(Watchdog(BOUNDS, 0), [Snapshot(joined=True, in_flight=3, commits=7)] * 190)
    assert faults[100] is None
    assert "no commit" in faults[-1]


def test_commits_are_progress_however_much_is_in_flight():
    """A full window that moves is no fault."""
    sights = [Snapshot(joined=True, in_flight=256, commits=n // 100) for n in range(1000)]
    assert set(_looks(Watchdog(BOUNDS, 0), sights)) == {None}


def test_loop_that_stood_still_is_seen_at_the_next_look():
    """A look that comes late tells that nothing else turned either; the next one is fine again."""
    watchdog = Watchdog(BOUNDS, 0)
    watchdog.look(IDLE, 1)
    assert "event loop" in watchdog.look(IDLE, 14)
    assert watchdog.look(IDLE, 15) is None


async def test_file_is_touched_while_live(tmp_path):
    """A health check can look at the age of a file; a process that is not ready is live."""
    alive = tmp_path / "alive"
    readiness = Readiness()
    readiness.block("transaction:0", "left open by somebody else, whom no restart of ours stops")
    watching = asyncio.create_task(
        watch(BOUNDS, lambda: IDLE, readiness, end_loop_seconds=60, alive=alive)
    )
    async with asyncio.timeout(30):
        while not alive.exists():  # noqa: ASYNC110 - another process would look like this
            await asyncio.sleep(0.05)
    watching.cancel()
