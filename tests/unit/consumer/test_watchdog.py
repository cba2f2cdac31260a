"""What counts as stuck, and what does not."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from consumer.runtime.alive_file import AliveFile
from consumer.runtime.readiness import Readiness
from consumer.runtime.watchdog import Bounds, Liveness, Snapshot, Watchdog, Work, watch
from imagelane.exits import ExitCode, FatalError

BOUNDS = Bounds(join_seconds=60, progress_seconds=180, loop_seconds=10, end_seconds=30)
IDLE = Snapshot(joined=True, work={})


def _at_work(*progress: int, in_flight: int = 3, recalling: bool = False) -> Snapshot:
    """A partition for each `progress`."""
    work = [Work(in_flight=in_flight, recalling=recalling, progress=each) for each in progress]
    return Snapshot(joined=True, work={f"t-{number}": one for number, one in enumerate(work)})


def _looks(watchdog: Watchdog, sights: Iterable[Snapshot]) -> list[str | None]:
    """Look once a second; return the faults."""
    return [watchdog.check(snapshot, now) for now, snapshot in enumerate(sights, start=1)]


def test_idle_member_is_live() -> None:
    """A topic without traffic, or a spare member without partitions, is no fault."""
    assert set(_looks(Watchdog(BOUNDS, 0), [IDLE] * 1000)) == {None}


def test_member_outside_the_group_is_not_live_and_then_ends() -> None:
    """Not being in the group has a bound, and being not live has another."""
    watchdog, outside = Watchdog(BOUNDS, 0), Snapshot(joined=False, work={})
    faults = _looks(watchdog, [outside] * 91)
    assert faults[59] is None
    assert "not in the group" in faults[60]
    with pytest.raises(FatalError) as caught:
        watchdog.check(outside, 92)
    assert caught.value.code is ExitCode.STUCK


def test_work_without_a_commit_is_not_live() -> None:
    """Records in flight must lead to commits."""
    faults = _looks(Watchdog(BOUNDS, 0), [_at_work(7)] * 190)
    assert faults[100] is None
    assert "no commit" in faults[-1]


def test_commits_are_progress_however_much_is_in_flight() -> None:
    """A full window that moves is no fault."""
    sights = [_at_work(n // 100, in_flight=256) for n in range(1000)]
    assert set(_looks(Watchdog(BOUNDS, 0), sights)) == {None}


def test_partition_that_stands_still_beside_one_that_moves_is_not_live() -> None:
    """The commits of the others say nothing of it."""
    faults = _looks(Watchdog(BOUNDS, 0), [_at_work(n, 7) for n in range(190)])
    assert faults[100] is None
    assert "partition t-1" in faults[-1]


def test_history_that_is_read_for_ever_is_not_live() -> None:
    """Nothing is in flight then; each record that is read is progress."""
    reading = [_at_work(n // 100, in_flight=0, recalling=True) for n in range(1000)]
    assert set(_looks(Watchdog(BOUNDS, 0), reading)) == {None}
    faults = _looks(Watchdog(BOUNDS, 0), [_at_work(7, in_flight=0, recalling=True)] * 190)
    assert faults[100] is None
    assert "history" in faults[-1]


def test_partition_that_waits_for_records_is_live() -> None:
    """However long ago its last commit was."""
    assert set(_looks(Watchdog(BOUNDS, 0), [_at_work(7, in_flight=0)] * 1000)) == {None}


def test_loop_that_stood_still_is_seen_at_the_next_look() -> None:
    """A look that comes late tells that nothing else turned either; the next one is fine again."""
    watchdog = Watchdog(BOUNDS, 0)
    watchdog.check(IDLE, 1)
    assert "event loop" in watchdog.check(IDLE, 14)
    assert watchdog.check(IDLE, 15) is None


async def test_file_is_touched_while_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A health check can look at the age of a file; a process that is not ready is live."""
    monkeypatch.setattr("consumer.runtime.watchdog.CHECK_SECONDS", 0.001)
    alive = tmp_path / "alive"
    readiness = Readiness()
    readiness.block("transaction:0", "left open by somebody else, whom no restart of ours stops")
    watching = asyncio.create_task(
        watch(
            BOUNDS,
            lambda: IDLE,
            readiness,
            end_loop_seconds=60,
            liveness=Liveness(),
            alive=AliveFile(alive),
        )
    )
    async with asyncio.timeout(30):
        while not alive.exists():  # noqa: ASYNC110 - another process would look like this
            await asyncio.sleep(0.05)
    watching.cancel()
