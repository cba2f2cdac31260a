"""HostLimiter: a few at a host at once, and fetches without hope are given up for the others."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from consumer.errors import Failed, Unavailable
from consumer.images.loop_clock import LoopClock
from consumer.images.sources.host_limiter import HostLimiter, HostOverloaded
from schemas import Code

BUSY = Unavailable(Code.IMAGE_UNAVAILABLE, "busy")
GONE = Failed(Code.NOT_FOUND, "gone")


@dataclass
class Visits:
    """A limiter with a clock that is set by hand, and the fetches that want slots."""

    limiter: HostLimiter
    time: list[float]
    inside: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    ends: dict[str, asyncio.Future[Exception | None]] = field(default_factory=dict)
    waits: set[str] = field(default_factory=set)

    async def want(self, host: str, *names: str) -> None:
        self.tasks |= {name: asyncio.create_task(self._visit(host, name)) for name in names}
        await _settle()

    async def end(self, name: str, error: Exception | None = None) -> None:
        self.ends[name].set_result(error)
        await _settle()

    async def pass_time(self, seconds: float) -> None:
        """Let the loop run for so long, with a tick and a sweep every half second."""
        for _ in range(round(seconds * 2)):
            self.time[0] += 0.5
            self.limiter.clock.tick()
            self.limiter.sweep()
            await _settle()

    async def pause(self, seconds: float) -> None:
        """Stand still for so long, then tick and sweep."""
        self.time[0] += seconds
        self.limiter.clock.tick()
        self.limiter.sweep()
        await _settle()

    async def ask_others(self, times: int) -> None:
        for _ in range(times):
            async with self.limiter.slot("other", object()):
                pass

    async def _visit(self, host: str, name: str) -> None:
        try:
            async with self.limiter.slot(host, name) as visit:
                self.inside.append(name)
                self.ends[name] = asyncio.get_running_loop().create_future()
                try:
                    if name in self.waits:
                        with visit.waiting_for_memory():
                            await self.ends[name]
                    elif error := await self.ends[name]:
                        raise error
                finally:
                    self.inside.remove(name)
        except HostOverloaded:
            self.gone.append(name)
        except Failed:
            pass


@contextmanager
def _visits(**limits: float) -> Iterator[Visits]:
    time = [100.0]
    fields: dict[str, Any] = {"at_once": 2, "max_waiters": 3, "max_age_seconds": 60} | limits
    visits = Visits(HostLimiter(**fields, clock=LoopClock(lambda: time[0])), time)
    try:
        yield visits
    finally:
        for task in visits.tasks.values():
            task.cancel()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_host_is_asked_by_a_few_at_once_in_order() -> None:
    """The others wait for a slot, and those of another host do not."""
    with _visits() as visits:
        await visits.want("a", "1", "2", "3", "4")
        await visits.want("b", "x")
        assert visits.inside == ["1", "2", "x"]
        await visits.end("2")
        assert visits.inside == ["1", "x", "3"]


async def test_slot_of_one_who_gave_up_goes_on() -> None:
    """A cancelled record takes no slot along, whether it waited for it or had it."""
    with _visits() as visits:
        await visits.want("a", "1", "2", "3", "4", "5")
        for name in "312":
            visits.tasks[name].cancel()
        await _settle()
        assert visits.inside == ["4", "5"]


async def test_oldest_at_a_host_that_hangs_are_given_up() -> None:
    """Down to the bound, once each had its time; those that come then have theirs."""
    with _visits() as visits:
        await visits.ask_others(10)
        await visits.want("a", "1", "2", "3", "4", "5")
        await visits.pass_time(1.5)
        assert visits.gone == []
        await visits.pass_time(0.5)
        assert visits.gone == ["1", "2"]
        await visits.want("a", "6")
        await visits.pass_time(1.5)
        assert visits.gone == ["1", "2"]
        await visits.pass_time(0.5)
        assert visits.gone == ["1", "2", "3"]


async def test_hosts_that_hang_are_counted_together() -> None:
    """A host is a name only: under a wildcard each fetch may have one of its own."""
    with _visits() as visits:
        await visits.ask_others(10)
        for name in "12345":
            await visits.want(f"{name}.wild", name)
        await visits.pass_time(2)
        assert visits.gone == ["1", "2"]


@pytest.mark.parametrize("answer", [None, GONE])
async def test_host_that_answers_has_credit(answer: Any) -> None:
    """An image, or that there is none: that one fetch is slow says nothing of the others."""
    with _visits() as visits:
        await visits.ask_others(10)
        await visits.want("a", "0")
        await visits.end("0", answer)
        await visits.want("a", "1", "2", "3", "4", "5", "6")
        await visits.end("1", answer)
        await visits.pass_time(1.5)
        await visits.end("2", answer)
        await visits.pass_time(1.5)
        assert visits.gone == []
        await visits.pass_time(0.5)  # now all that ask it have done so for two seconds
        assert visits.gone == ["3"]


async def test_too_many_for_a_slow_host_are_given_up() -> None:
    """It answers each time, and would not serve them all by the age at which they are given up."""
    with _visits(at_once=1, max_age_seconds=4) as visits:
        await visits.ask_others(80)
        for number in range(40):
            await visits.want("a", f"past {number}")
            await visits.pass_time(1)
            await visits.end(f"past {number}")
        await visits.want("a", *map(str, range(12)))
        for number in range(2):
            await visits.pass_time(1)
            await visits.end(f"{number}")
        await visits.pass_time(0.5)
        # Of eleven after two seconds, four are served in four more and three may wait in vain.
        assert visits.gone == ["5", "6", "7", "8"]


async def test_failure_is_final_where_too_many_fail() -> None:
    """Another try would make one more of them; those asleep until then count."""
    with _visits() as visits:
        await visits.ask_others(20)
        for name in "123":
            await visits.want(f"{name}.wild", name)
            await visits.end(name, Unavailable(Code.IMAGE_UNAVAILABLE, "busy", 50))
        await visits.pass_time(0.5)
        assert visits.gone == []
        await visits.want("4.wild", "4")
        await visits.end("4", BUSY)
        assert visits.gone == ["4"]
        await visits.pass_time(51)
        await visits.want("5.wild", "5")
        await visits.end("5", BUSY)
        assert visits.gone == ["4"]


async def test_retries_are_no_further_fetches() -> None:
    """Those that sleep at one host count until they are back; others who come change nothing."""
    with _visits() as visits:
        await visits.ask_others(20)
        for name in "123":
            await visits.want("a", name)
            await visits.end(name, Unavailable(Code.IMAGE_UNAVAILABLE, "busy", 50))
        await visits.pass_time(0.5)
        for name in "4567":
            await visits.want("a", name)
            await visits.end(name, BUSY)
            await visits.pass_time(0.5)
        assert visits.gone == ["4", "5", "6", "7"]
        await visits.want("a", "1")
        await visits.pass_time(0.5)
        await visits.want("a", "8")
        await visits.end("8", BUSY)
        assert visits.gone == ["4", "5", "6", "7"]


async def test_failure_at_a_sound_host_is_never_final() -> None:
    """Whatever others do: one that answers most of the time has its retries."""
    with _visits() as visits:
        await visits.ask_others(20)
        for name in "1234":
            await visits.want(f"{name}.wild", name)
            await visits.end(name, Unavailable(Code.IMAGE_UNAVAILABLE, "busy", 50))
        await visits.pass_time(0.5)
        for name in ("a", "b", "c"):
            await visits.want("sound", name)
            await visits.end(name, BUSY if name == "c" else None)
        assert visits.gone == []


async def test_nothing_is_given_up_where_there_is_nobody_else() -> None:
    """With nearly all fetches at hosts that hang, their outage is waited for."""
    with _visits() as visits:
        await visits.ask_others(1)
        await visits.want("a", *map(str, range(9)))
        await visits.pass_time(5)
        assert visits.gone == []


async def test_pause_of_the_loop_is_no_silence_of_a_host() -> None:
    """However long; afterwards each fetch has the time that was left to it."""
    with _visits() as visits:
        await visits.ask_others(10)
        await visits.want("a", "1", "2", "3", "4", "5")
        await visits.pause(60)
        await visits.pause(60)
        assert visits.gone == []
        await visits.pass_time(2)
        assert visits.gone == ["1", "2"]


async def test_failure_in_a_pause_counts_against_nobody() -> None:
    """All deadlines are over at its end, whatever lies in the sockets."""
    with _visits(max_waiters=1) as visits:
        await visits.ask_others(20)
        await visits.want("a", "1", "2")
        visits.time[0] += 60
        for name in "12":
            await visits.end(name, BUSY)
        await visits.pass_time(1)
        await visits.want("a", "3")
        await visits.end("3", BUSY)
        assert visits.gone == []


async def test_waiting_for_our_memory_is_no_silence_of_a_host() -> None:
    """Models that are slow fill it, and keep every slot of a sound host for long."""
    with _visits() as visits:
        await visits.ask_others(20)
        visits.waits |= {"1", "2"}
        await visits.want("a", *map(str, range(1, 9)))
        await visits.pass_time(120)
        assert visits.gone == []


async def test_many_hosts_are_forgotten() -> None:
    """What is known of a host goes when there are too many of them, unless it is being asked."""
    limiter = HostLimiter(at_once=1, max_waiters=3, max_age_seconds=60, clock=LoopClock())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(limiter.slot("kept", object()))
        for number in range(5000):
            async with limiter.slot(f"host-{number}", object()):
                pass
        assert limiter.known_hosts < 2000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), limiter.slot("kept", object()):
                pass
