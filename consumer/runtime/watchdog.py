"""Detects that the process is stuck, logs it, and after a bound ends the process for a restart.

A process is stuck if it is not in the group, does not commit its work, never ends reading a
history, or has a stalled event loop. `Watchdog` decides and is pure; `watch` is the loop around it.
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

CHECK_SECONDS: Final = 1.0
_SPARE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long each state may last before the process is not live; `end_seconds` later it ends."""

    join_seconds: float
    progress_seconds: float
    loop_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of a partition: records in flight, or (`recalling`) the reading of its history.

    `progress` changes with each commit and with each record of the history.
    """

    in_flight: int
    recalling: bool
    progress: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at one check: whether in the group, and the work by partition."""

    joined: bool
    work: Mapping[str, Work]


class Liveness:
    """The result of the watchdog's last check; before the first one the process is starting."""

    def __init__(self) -> None:
        self.fault: str | None = "starting"
        self.loop_lag_seconds = Distribution(SECONDS)

    def note(self, fault: str | None, lag_seconds: float) -> None:
        """Note a check: why the process is not live, and how late the check came."""
        self.fault = fault
        self.loop_lag_seconds.observe([max(0.0, lag_seconds)])


class Watchdog:
    """Remembers since when each state holds. Pure: the time is an argument."""

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._bounds = bounds
        self._joined_at = self._checked_at = now
        self._progress: dict[str, tuple[int, float]] = {}  # by partition: `progress`, since when
        self._faulty_since: float | None = None

    def check(self, snapshot: Snapshot, now: float) -> str | None:
        """Return why the process is not live, or None.

        Raises:
            FatalError: the process has not been live for `end_seconds`.
        """
        if snapshot.joined:
            self._joined_at = now
        self._progress = {
            partition: (work.progress, self._since(partition, work, now))
            for partition, work in snapshot.work.items()
        }
        fault = self._fault(snapshot, now)
        self._checked_at = now
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
        outside, stalled = now - self._joined_at, now - self._checked_at - CHECK_SECONDS
        if outside > bounds.join_seconds:
            return f"not in the group for {outside:.0f} s"
        for partition, work in snapshot.work.items():
            idle = now - self._progress[partition][1]
            if idle > bounds.progress_seconds:
                missing = "no record of its history" if work.recalling else "no commit"
                return (
                    f"partition {partition}, {work.in_flight} records in flight: "
                    f"{missing} for {idle:.0f} s"
                )
        if stalled > bounds.loop_seconds:
            return f"the event loop stood still for {stalled:.0f} s"
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
    """Check every second until cancelled: update `liveness` and the file, and log `readiness`.

    Without a check for `end_loop_seconds` the loop is stalled, and a timer ends the process.

    Raises:
        FatalError: as `Watchdog.check`.
    """
    watchdog = Watchdog(bounds, time.monotonic())
    timer = ExitTimer(f"the event loop stood still for {end_loop_seconds:.0f} s", is_json=is_json)
    last_fault: str | None = None
    try:
        while True:
            timer.set(end_loop_seconds)
            # Native code that holds the GIL also stops the timer's thread. faulthandler's thread
            # needs no GIL, but its exit code is 1 and its lines are no JSON.
            faulthandler.dump_traceback_later(end_loop_seconds + _SPARE_SECONDS, exit=True)
            slept_at = time.monotonic()
            await asyncio.sleep(CHECK_SECONDS)
            now = time.monotonic()
            fault = watchdog.check(snapshot(), now)
            liveness.note(fault, now - slept_at - CHECK_SECONDS)
            if fault and not last_fault:
                log.error("not live", reason=fault)
            if last_fault and not fault:
                log.info("live again")
            if alive and not fault:
                alive.touch()
            last_fault = fault
            readiness.report(time.monotonic())
    finally:
        timer.set(None)
        faulthandler.cancel_dump_traceback_later()
