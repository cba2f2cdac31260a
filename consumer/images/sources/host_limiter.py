"""Bounds the fetches at one host, and gives up those that would hold back all other hosts.

At most `at_once` fetches ask a host; the others wait for a slot, and that wait counts in no
deadline. Records in flight are bounded, so hosts that hang could in time hold all of them. Every
half second the limiter therefore counts the hopeless fetches, over all hosts together: one owner of
a domain has any number of host names. Beyond `max_waiters` it gives up the oldest.

A fetch is hopeless after `_PATIENCE_SECONDS`,
- if its host is in trouble: more fetches have asked it for that long than it has credit. An answer
  adds credit, a failure takes it away;
- if its host answers, but too slowly to give it a slot within `max_age_seconds`.

Invariant: where hopeless hosts have more than `_MAX_SHARE` of the latest fetches, nothing is given
up. Few other fetches need protection then, and waiting is better than failing. Only time in which
the event loop ran, and in which the fetch did not wait for memory, counts against a host.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from consumer.errors import Failed, Unavailable
from consumer.images.loop_clock import LoopClock

_PATIENCE_SECONDS: Final = 2.0
_MAX_SHARE: Final = 0.75
_RECENT: Final = 256  # the latest fetches, of which the share is taken
# About the longest sleep before a retry, if the host names none.
_SLEEP_SECONDS: Final = 1.0
_MAX_IDLE_HOSTS: Final = 1024
_MEAN_OF: Final = 16  # fetches


class HostOverloaded(Exception):
    """More fetches wait for a host than it will answer in time."""


@dataclass(slots=True, eq=False, kw_only=True)
class Visit:
    """One fetch at a host: it waits for a slot, asks, or waits for our memory."""

    clock: LoopClock
    patience: asyncio.Timeout
    since: float
    asked_seconds: float = 0.0  # until it asks (again)
    asking_since: float | None = None
    excused: bool = False
    given_up: bool = False

    def seconds(self) -> float:
        """Return for how long this fetch has asked the host."""
        since = self.asking_since
        return self.asked_seconds + (0.0 if since is None else self.clock.seconds - since)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Count the time of this block against the host."""
        self.asking_since = self.clock.seconds
        try:
            yield
        finally:
            self.asked_seconds, self.asking_since = self.seconds(), None

    @contextmanager
    def waiting_for_memory(self) -> Iterator[None]:
        """Leave the time of this block, within `asking`, out."""
        self.asked_seconds, self.asking_since, self.excused = self.seconds(), None, True
        try:
            yield
        finally:
            self.asking_since, self.excused = self.clock.seconds, False

    def give_up(self) -> None:
        """End the fetch, wherever it is."""
        self.given_up = True
        self.patience.reschedule(asyncio.get_running_loop().time())


@dataclass(slots=True, kw_only=True)
class _Host:
    at_once: int
    slots: asyncio.Semaphore
    visits: dict[Visit, None] = field(default_factory=dict)  # in order of arrival
    asleep: dict[object, float] = field(
        default_factory=dict
    )  # failed fetches, and when they try again
    credit: int = 0
    mean_seconds: float = 0.0

    def note(self, visit: Visit, *, answered: bool) -> None:
        self.mean_seconds += (visit.seconds() - self.mean_seconds) / _MEAN_OF
        most = max(1, self.at_once // 2)
        self.credit = max(-most, min(most, self.credit + (1 if answered else -1)))

    def is_in_trouble(self) -> bool:
        overdue = sum(visit.seconds() >= _PATIENCE_SECONDS for visit in self.visits)
        return overdue > self.credit

    def hopeless(self, now: float, max_age_seconds: float) -> tuple[list[Visit], int]:
        """Return the hopeless visits, and how many more sleep before a retry."""
        self.asleep = {who: until for who, until in self.asleep.items() if until > now}
        visits, asleep = list(self.visits), len(self.asleep)
        if not self.is_in_trouble():
            asleep = 0
            fraction = max_age_seconds / self.mean_seconds if self.mean_seconds else len(visits)
            visits = visits[int(self.at_once * fraction) :]
        late = now - _PATIENCE_SECONDS
        found = [v for v in visits if v.since <= late and not v.excused and not v.given_up]
        return found, asleep


@dataclass(slots=True, kw_only=True)
class HostLimiter:
    """At most `at_once` slots for one host; at most `max_waiters` hopeless fetches in all."""

    at_once: int
    max_waiters: int
    max_age_seconds: float
    clock: LoopClock
    _hosts: dict[str, _Host] = field(default_factory=dict)
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _pauses: int = 0
    _is_full: bool = False  # of hopeless fetches, at the latest sweep

    @property
    def known_hosts(self) -> int:
        """The number of hosts that have fetches, credit or retries."""
        return len(self._hosts)

    @asynccontextmanager
    async def slot(self, name: str, who: object) -> AsyncIterator[Visit]:
        """Wait for a slot at the host `name`, and have it until the block ends.

        `who` is the same for each try of a record. `Unavailable` from the block is a failure of the
        host, any other `Failed` is an answer.

        Raises:
            HostOverloaded: the fetch is given up. It replaces `Unavailable` where a retry would
                only wait in vain.
        """
        host = self._host(name)
        if host.asleep.pop(who, None) is None:  # no retry
            self._recent.append(name)
        try:
            async with asyncio.timeout(None) as patience:
                visit = Visit(clock=self.clock, patience=patience, since=self.clock.seconds)
                host.visits[visit] = None
                try:
                    async with host.slots:
                        with visit.asking(), self._judging(host, visit, who):
                            yield visit
                finally:
                    del host.visits[visit]
        except TimeoutError as exc:
            if visit.given_up:
                raise HostOverloaded from exc
            raise

    def sweep(self) -> None:
        """Give up the oldest hopeless fetches beyond `max_waiters`; called every half second."""
        pauses, self._pauses = self._pauses, self.clock.pauses
        if pauses != self._pauses:
            return  # answers that came during the pause are not read yet
        now, hopeless, asleep, names = self.clock.seconds, list[Visit](), 0, set[str]()
        for name, host in self._hosts.items():
            visits, sleepers = host.hopeless(now, self.max_age_seconds)
            if visits or sleepers:
                hopeless += visits
                asleep += sleepers
                names.add(name)
        excess = len(hopeless) + asleep - self.max_waiters
        share = sum(name in names for name in self._recent) / max(1, len(self._recent))
        self._is_full = excess >= 0 and share <= _MAX_SHARE
        if self._is_full:
            for visit in sorted(hopeless, key=lambda visit: visit.since)[:excess]:
                visit.give_up()

    @contextmanager
    def _judging(self, host: _Host, visit: Visit, who: object) -> Iterator[None]:
        pauses = self.clock.pauses
        try:
            yield
        except Unavailable as failed:
            if self.clock.pauses != pauses:
                raise
            host.note(visit, answered=False)
            if self._is_full and host.is_in_trouble():
                raise HostOverloaded from failed
            sleep_seconds = max(failed.retry_after_seconds or 0.0, _SLEEP_SECONDS)
            host.asleep[who] = self.clock.seconds + min(sleep_seconds, self.max_age_seconds)
            raise
        except Failed:
            host.note(visit, answered=True)
            raise
        except asyncio.CancelledError:
            if visit.given_up:
                host.note(visit, answered=False)
            raise
        else:
            host.note(visit, answered=True)

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= _MAX_IDLE_HOSTS:
                self._hosts = {
                    key: host for key, host in self._hosts.items() if host.visits or host.asleep
                }
            host = _Host(at_once=self.at_once, slots=asyncio.Semaphore(self.at_once))
            self._hosts[name] = host
        return host
