"""Notices that the process is stuck, says so, and after a bound ends it, to be started anew.

Four things are stuck: a member that is not in the group, work that never gets committed, a worker
that reads its history for ever, and an event loop that does not turn. What decides is pure; `watch`
is the thin shell around it.
"""

import asyncio
import faulthandler
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from consumer.runtime.alive_file import AliveFile
from consumer.runtime.distribution import SECONDS, Distribution
from consumer.runtime.exit_timer import ExitTimer
from consumer.runtime.readiness import Readiness
from imagelane.exits import ExitCode, FatalError

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
_SPARE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long each state may last before the process is not live, in seconds.

    `end_seconds` later it is ended. A loop that stands still for a session timeout is ended too:
    the group has given its partitions away by then.
    """

    join_seconds: float
    progress_seconds: float
    loop_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a partition's worker does: records taken and not committed, or still its history.

    `progress` changes with each commit, and with each record of the history.
    """

    in_flight: int
    recalling: bool
    progress: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is seen at one look: in the group or not, and the work by partition."""

    joined: bool
    work: Mapping[str, Work]


class Liveness:
    """What the watchdog found at its last look; before the first one the process is starting."""

    def __init__(self) -> None:
        self.fault: str | None = "starting"
        self.loop_lag_seconds = Distribution(SECONDS)

    def note(self, fault: str | None, lag_seconds: float) -> None:
        """Note a look: why the process is not live, and how late the look came."""
        self.fault = fault
        self.loop_lag_seconds.observe([max(0.0, lag_seconds)])


class Watchdog:
    """Remembers since when each state lasts. Pure: the time is an argument."""

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._bounds = bounds
        self._joined_at = self._looked_at = now
        self._progress: dict[str, tuple[int, float]] = {}  # by partition: how far, and since when
        self._faulty_since: float | None = None

    def look(self, snapshot: Snapshot, now: float) -> str | None:
        """Return why the process is not live, or None.

        Raises:
            FatalError: it has not been live for too long.
        """
        if snapshot.joined:
            self._joined_at = now
        self._progress = {
            partition: (work.progress, self._since(partition, work, now))
            for partition, work in snapshot.work.items()
        }
        fault = self._fault(snapshot, now)
        self._looked_at = now
        if fault is None:
            self._faulty_since = None
        elif self._faulty_since is None:
            self._faulty_since = now
        elif now - self._faulty_since > self._bounds.end_seconds:
            raise FatalError(ExitCode.STUCK, f"stuck: {fault}; nothing is lost, start again")
        return fault

    def _since(self, partition: str, work: Work, now: float) -> float:
        progress, since = self._progress.get(partition, (None, now))
        busy = work.in_flight or work.recalling
        return since if busy and work.progress == progress else now

    def _fault(self, snapshot: Snapshot, now: float) -> str | None:
        bounds = self._bounds
        outside, still = now - self._joined_at, now - self._looked_at - LOOK_SECONDS
        if outside > bounds.join_seconds:
            return f"not in the group for {outside:.0f} s"
        for partition, work in snapshot.work.items():
            barren = now - self._progress[partition][1]
            if barren > bounds.progress_seconds:
                lack = "no record of its history" if work.recalling else "no commit"
                return (
                    f"partition {partition}, {work.in_flight} records in flight: "
                    f"{lack} for {barren:.0f} s"
                )
        if still > bounds.loop_seconds:
            return f"the event loop stood still for {still:.0f} s"
        return None


async def watch(
    bounds: Bounds,
    snapshot: Callable[[], Snapshot],
    readiness: Readiness,
    *,
    end_loop_seconds: float,
    liveness: Liveness,
    alive: AliveFile | None,
    is_json: bool = False,
) -> None:
    """Look every second until cancelled; `liveness` has the last look, and the file its time.

    What keeps it from being ready is logged, and changes nothing else.

    Raises:
        FatalError: the process has not been live for too long.
    """
    watchdog = Watchdog(bounds, time.monotonic())
    timer = ExitTimer(f"the event loop stood still for {end_loop_seconds:.0f} s", is_json=is_json)
    was: str | None = None
    try:
        while True:
            timer.set(end_loop_seconds)
            # The timer is a thread of Python's, which native code may hold up. This one is not, but
            # it can end the process with 1 only, and says why in lines that are no JSON.
            faulthandler.dump_traceback_later(end_loop_seconds + _SPARE_SECONDS, exit=True)
            slept_at = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            fault = watchdog.look(snapshot(), now)
            liveness.note(fault, now - slept_at - LOOK_SECONDS)
            if fault and not was:
                log.error("not live", reason=fault)
            if was and not fault:
                log.info("live again")
            if alive and not fault:
                alive.touch()
            was = fault
            readiness.report(time.monotonic())
    finally:
        timer.set(None)
        faulthandler.cancel_dump_traceback_later()
