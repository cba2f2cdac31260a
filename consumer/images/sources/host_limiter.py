"""Whose turn it is to ask a host, so that one that does not answer takes little from the others.

A host is asked by a few records at once; more of them wait for their turn, which counts in none of
their deadlines. But records in flight are bounded, and those that wait for a host that hangs would
soon be all of them. So there is a bound on waiting as well. Where a host has a crowd, and answers
so seldom that the crowd would not have had its turn by the age at which a fetch is given up anyway,
those that are too many for it are given up now. Not so when nearly all references are to this one
host: there is nobody to protect then, and waiting is better than failing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from consumer.errors import Failed, Unavailable

# How far back answers are counted, and how long a host is asked before it is judged.
_SIGHT_SECONDS: Final = 3.0
# Of this many fetches, a host must have less than this share to be given up.
_RECENT: Final = 256
_PROTECTED_SHARE: Final = 0.75
# How long a retry sleeps at most, more or less, if the host does not say.
_SLEEP_SECONDS: Final = 1.0
_MAX_IDLE_HOSTS: Final = 1024


class HopelessError(Exception):
    """More records want a host than it will answer in time."""


@dataclass(slots=True, kw_only=True)
class _Host:
    turns: asyncio.Semaphore
    busy_since: float
    seen: float
    records: int = 0  # with a turn, or waiting for it
    asleep: list[float] = field(default_factory=list)  # when those that failed will ask again
    answers: deque[float] = field(default_factory=deque)

    def forget_answers(self, until: float) -> None:
        while self.answers and self.answers[0] < until:
            self.answers.popleft()


@dataclass(slots=True, kw_only=True)
class HostLimiter:
    """At most `at_once` turns of one host; its crowd is bounded by `max_crowd` if it must be.

    `max_age_seconds` is the age at which a fetch is given up anyway.
    """

    at_once: int
    max_crowd: int
    max_age_seconds: float
    now: Callable[[], float] = monotonic
    _hosts: dict[str, _Host] = field(default_factory=dict)
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @property
    def known_hosts(self) -> int:
        """The number of hosts of which something is remembered."""
        return len(self._hosts)

    @property
    def known_answers(self) -> int:
        """The number of answers of all hosts that are remembered."""
        return sum(len(host.answers) for host in self._hosts.values())

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn at the host `name`, and have it until the block ends.

        `Unavailable` from the block is no answer of the host, any other `Failed` is one.

        Raises:
            HopelessError: the host has a crowd, and answers too seldom. Instead of `Unavailable` as
                well, since trying again would make the crowd larger.
        """
        host = self._host(name)
        self._recent.append(name)
        host.records += 1
        try:
            await self._wait(name, host)
            try:
                yield
            except Failed as failed:
                if not isinstance(failed, Unavailable):
                    self._add_answer(host)
                    raise
                if self._is_crowded(name, host):
                    raise HopelessError from failed
                sleep_seconds = max(failed.retry_after_seconds or 0.0, _SLEEP_SECONDS)
                host.asleep.append(self.now() + min(sleep_seconds, self.max_age_seconds))
                raise
            else:
                self._add_answer(host)
            finally:
                host.turns.release()
        finally:
            host.records -= 1
            host.seen = self.now()

    async def _wait(self, name: str, host: _Host) -> None:
        if not host.turns.locked():
            await host.turns.acquire()
            return
        # A task, so that the place in the queue is kept while the host is judged now and then.
        acquiring = asyncio.create_task(host.turns.acquire())
        try:
            while not acquiring.done():
                if self._is_hopeless(name, host):
                    raise HopelessError
                await asyncio.wait({acquiring}, timeout=1)
        except BaseException:
            if acquiring.done():
                host.turns.release()
            acquiring.cancel()
            raise

    def _is_hopeless(self, name: str, host: _Host) -> bool:
        """Tell whether waiting is in vain; a host that is asked since a moment ago may be slow."""
        is_new = self.now() - host.busy_since < _SIGHT_SECONDS
        return not is_new and self._is_crowded(name, host)

    def _is_crowded(self, name: str, host: _Host) -> bool:
        """Tell whether more want the host than it answers in time, beside others who wait."""
        now = self.now()
        host.forget_answers(now - _SIGHT_SECONDS)
        host.asleep = [until for until in host.asleep if until > now]
        crowd = host.records + len(host.asleep)
        return (
            crowd > self.max_crowd
            and crowd * _SIGHT_SECONDS > len(host.answers) * self.max_age_seconds
            and self._recent.count(name) <= _PROTECTED_SHARE * len(self._recent)
        )

    def _add_answer(self, host: _Host) -> None:
        now = self.now()
        host.forget_answers(now - _SIGHT_SECONDS)  # a host that does well is never judged
        host.answers.append(now)

    def _host(self, name: str) -> _Host:
        now = self.now()
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= _MAX_IDLE_HOSTS:
                self._hosts = {key: host for key, host in self._hosts.items() if host.records}
            host = _Host(turns=asyncio.Semaphore(self.at_once), busy_since=now, seen=now)
            self._hosts[name] = host
        elif not host.records and now - host.seen > _SIGHT_SECONDS:
            host.busy_since = now
        return host
