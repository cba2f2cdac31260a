"""How many fetches ask one host at once, and which are given up so that the others go on.

A host is asked by `at_once` fetches; more of them wait for a slot, which counts in no deadline. But
records in flight are bounded, and those that wait for hosts that hang would soon be all of them. So
every half second the fetches without hope are counted, those of all hosts together, since a host is
only a name, and whoever owns a domain has any number. Beyond `max_waiters` the oldest are given up.

A fetch is without hope after `_PATIENCE_SECONDS`,
- if its host is in trouble: more fetches ask it for that long than it has credit, and credit is
  won by an answer and lost by a failure;
- if the host answers, but too slowly for it to have its slot within `max_age_seconds`.

Nothing is given up where the hosts without hope are more than `_MAX_SHARE` of the latest fetches:
there is hardly anybody to protect, and waiting is better than failing. Nothing counts against a
host but time in which the event loop ran and no memory of ours was waited for.
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
_RECENT: Final = 256  # fetches of which that share is taken
# How long a retry sleeps at most, more or less, if the host does not say.
_SLEEP_SECONDS: Final = 1.0
_MAX_IDLE_HOSTS: Final = 1024
_MEAN_OF: Final = 16  # fetches


class HostOverloaded(Exception):
    """More fetches want a host than it will answer in time."""


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
        """Return how long the host has been asked."""
        since = self.asking_since
        return self.asked_seconds + (0.0 if since is None else self.clock.seconds - since)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Count the time of this block as the host's."""
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
    visits: dict[Visit, None] = field(default_factory=dict)  # in their order of arrival
    asleep: dict[object, float] = field(default_factory=dict)  # who failed, and asks again when
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
        """Return the visits without hope, and how many more are asleep until they ask again."""
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
    """At most `at_once` slots of one host; at most `max_waiters` without hope, at all hosts."""

    at_once: int
    max_waiters: int
    max_age_seconds: float
    clock: LoopClock
    _hosts: dict[str, _Host] = field(default_factory=dict)
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _pauses: int = 0
    _is_full: bool = False  # of those without hope, at the latest sweep

    @property
    def known_hosts(self) -> int:
        """The number of hosts of which something is remembered."""
        return len(self._hosts)

    @asynccontextmanager
    async def slot(self, name: str, who: object) -> AsyncIterator[Visit]:
        """Wait for a slot at the host `name`, and have it until the block ends.

        `who` is the same for each try of a record. `Unavailable` from the block is a failure of the
        host, any other `Failed` is an answer.

        Raises:
            HostOverloaded: the fetch is given up. Also instead of `Unavailable`, where another try
                would make one more wait in vain.
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
        """Give up the oldest of those without hope that are too many; call it every half second."""
        pauses, self._pauses = self._pauses, self.clock.pauses
        if pauses != self._pauses:
            return  # what came during the pause is not read yet
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
