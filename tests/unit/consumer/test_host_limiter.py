"""HostLimiter at a host: a few at once, and a crowd that waits for nothing is sent away."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from consumer.errors import Failed, Unavailable
from consumer.images.sources.host_limiter import HopelessError, HostLimiter
from schemas import Code

BUSY = Unavailable(Code.IMAGE_UNAVAILABLE, "busy")


@dataclass
class Visits:
    """HostLimiter with a clock that is set by hand, and the records that want them."""

    turns: HostLimiter
    clock: list[float]
    inside: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ends: dict[str, asyncio.Future[Exception | None]] = field(default_factory=dict)

    async def want(self, host: str, *names: str) -> None:
        self.tasks += [asyncio.create_task(self._visit(host, name)) for name in names]
        await _settle()

    async def end(self, name: str, error: Exception | None = None) -> None:
        self.ends[name].set_result(error)
        await _settle()

    async def _visit(self, host: str, name: str) -> None:
        try:
            async with self.turns.turn(host):
                self.inside.append(name)
                self.ends[name] = asyncio.get_running_loop().create_future()
                try:
                    if error := await self.ends[name]:
                        raise error
                finally:
                    self.inside.remove(name)
        except HopelessError:
            self.gone.append(name)
        except Failed:
            pass

    async def ask_others(self, times: int) -> None:
        for _ in range(times):
            async with self.turns.turn("other"):
                pass


@contextmanager
def _visits(**limits: float) -> Iterator[Visits]:
    clock = [100.0]
    fields = {"at_once": 2, "max_crowd": 3, "max_age_seconds": 60} | limits
    visits = Visits(HostLimiter(**fields, now=lambda: clock[0]), clock)
    try:
        yield visits
    finally:
        for task in visits.tasks:
            task.cancel()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_host_is_asked_by_a_few_at_once_in_order():
    """The others wait for their turn, and those of another host do not."""
    with _visits() as visits:
        await visits.want("a", "1", "2", "3", "4")
        await visits.want("b", "x")
        assert visits.inside == ["1", "2", "x"]
        await visits.end("2")
        assert visits.inside == ["1", "x", "3"]


async def test_turn_of_one_who_gave_up_goes_on():
    """A cancelled record takes no turn along, whether it waited for it or had it."""
    with _visits() as visits:
        await visits.want("a", "1", "2", "3", "4", "5")
        for index in (2, 0, 1):
            visits.tasks[index].cancel()
        await _settle()
        assert visits.inside == ["4", "5"]


async def test_crowd_of_a_host_that_does_not_answer_is_sent_away():
    """Down to the bound, those who come and those who wait, once there was time to answer."""
    with _visits() as visits:
        await visits.ask_others(10)
        await visits.want("a", "1", "2", "3", "4", "5")
        assert visits.gone == []
        visits.clock[0] += 5
        await visits.want("a", "6")
        assert visits.gone == ["6"]
        async with asyncio.timeout(5):  # those who wait look up each second
            while len(visits.gone) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert visits.gone == ["6", "3", "4"]
        assert visits.inside == ["1", "2"]


async def test_failure_in_a_crowd_without_answers_is_final():
    """Trying again would make the crowd larger; those asleep until then are part of it."""
    with _visits() as visits:
        await visits.ask_others(20)
        for name in "123456":
            await visits.want("a", name)
            await visits.end(name, Unavailable(Code.IMAGE_UNAVAILABLE, "busy", 50))
        assert visits.gone == ["4", "5", "6"]
        visits.clock[0] += 51
        await visits.want("a", "7")
        await visits.end("7", BUSY)
        assert visits.gone == ["4", "5", "6"]


async def test_failures_of_a_few_are_tried_again():
    """Without a crowd every failure that may heal is what it is."""
    with _visits() as visits:
        await visits.ask_others(20)
        for name in "123456":
            await visits.want("a", name)
            visits.clock[0] += 2
            await visits.end(name, BUSY)
        assert visits.gone == []


@pytest.mark.parametrize("error", [None, Failed(Code.NOT_FOUND, "gone")])
async def test_crowd_of_a_host_that_answers_waits(error):
    """Fast enough for all of them to have their turn in time: an image, or that there is none."""
    with _visits() as visits:
        await visits.ask_others(20)
        names = [str(number) for number in range(12)]
        await visits.want("a", *names)
        visits.clock[0] += 5
        await visits.end("0", error)
        await visits.want("a", "late")
        assert visits.gone == []
        visits.clock[0] += 5  # and then it falls silent
        await visits.want("a", "later")
        assert visits.gone == ["later"]


async def test_crowd_waits_where_there_is_nobody_else():
    """With one host for nearly all references, its outage is waited for."""
    with _visits() as visits:
        await visits.ask_others(1)
        await visits.want("a", *map(str, range(9)))
        visits.clock[0] += 5
        await visits.want("a", "late")
        assert visits.gone == []


async def test_pause_begins_a_new_judgement():
    """A host that was silent long ago has time to answer again."""
    with _visits() as visits:
        await visits.ask_others(20)
        await visits.want("a", "1")
        await visits.end("1", BUSY)
        visits.clock[0] += 100
        await visits.want("a", *map(str, range(9)))
        assert visits.gone == []


async def test_many_hosts_are_forgotten():
    """What is known of a host goes when there are too many of them, unless it is being asked."""
    turns = HostLimiter(at_once=1, max_crowd=3, max_age_seconds=60)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(turns.turn("kept"))
        for number in range(5000):
            async with turns.turn(f"host-{number}"):
                pass
        assert turns.known_hosts < 2000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), turns.turn("kept"):
                pass


@pytest.mark.parametrize("error", [None, Failed(Code.NOT_FOUND, "gone")])
async def test_old_answers_are_forgotten(error):
    """A host that always answers, and so is never judged, does not take ever more memory."""
    with _visits() as visits:
        for number in range(100):
            await visits.want("a", str(number))
            await visits.end(str(number), error)
            visits.clock[0] += 1
        assert visits.turns.known_answers <= 4
