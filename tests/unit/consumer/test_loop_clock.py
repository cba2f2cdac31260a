"""A pause of our own event loop is no time of a host's, and fails no record for good."""

import asyncio
import io
import threading
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from consumer.images.byte_budget import ByteBudget
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.loop_clock import LoopClock, every_tick
from consumer.images.prepare import FetchAndDecode
from consumer.images.retry import RetryPolicy
from consumer.images.sources import Sources
from consumer.pixels import Resize
from schemas import ImageReference, Request, Task
from tests.hostile_http import Names, Server, answer, http_settings, http_source, serving

DEADLINE_SECONDS = 2.5  # ample for an answer that takes 0.1 s, on a busy machine too


def test_clock_leaves_pauses_out():
    """It goes on by a second at most between two ticks, and counts what it left out."""
    now = [100.0]
    clock = LoopClock(lambda: now[0])
    for gap, seconds, pauses in [(0.5, 0.5, 0), (0.9, 1.4, 0), (60, 2.4, 1), (0.5, 2.9, 1)]:
        now[0] += gap
        assert (clock.seconds, clock.pauses) == (pytest.approx(seconds), pauses)
        clock.tick()
        assert (clock.seconds, clock.pauses) == (pytest.approx(seconds), pauses)


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """A sound host on a loop of its own: it answers after 0.1 s, ours running or not."""
    picture = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(picture, "PNG")
    give = answer(picture.getvalue())
    stop, started, servers = asyncio.Event(), threading.Event(), list[Server]()
    loops = list[asyncio.AbstractEventLoop]()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await give(writer)

    async def serve() -> None:
        async with serving({"/a": slowly}) as server:
            servers.append(server)
            loops.append(asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait()
    yield servers[0]
    loops[0].call_soon_threadsafe(stop.set)
    thread.join()


async def test_pause_fails_no_record_of_a_sound_host(elsewhere):
    """Though every deadline is over at its end, and there is one try only."""
    settings = http_settings(
        allowed_hosts=(f".test:{elsewhere.port}",),
        allowed_networks=("127.0.0.0/8",),
        fetch_idle_seconds=DEADLINE_SECONDS,
        fetch_total_seconds=DEADLINE_SECONDS,
        fetch_grace_seconds=60,
    )
    clock = LoopClock()
    async with (
        Decoder(DecodeLimits(), timeout_seconds=20, workers=1) as decoder,
        http_source(settings, Names(a_test=[["127.0.0.1"]], b_test=[["127.0.0.1"]]), clock) as http,
    ):
        preparation = FetchAndDecode(
            sources=Sources(by_scheme={"http": http}, max_bytes=10_000, clock=clock),
            decoder=decoder,
            resizes={Task.EMBED: Resize(height=8, width=8, resample=3, crop=False)},
            retry=RetryPolicy(max_attempts=1),
            budget=ByteBudget(10**7),
        )

        async def prepare(host: str) -> None:
            image = ImageReference(uri=f"http://{host}.test:{elsewhere.port}/a")
            request = Request(id="a", image=image, tasks=(Task.EMBED,))
            async with preparation.prepare(request):
                pass

        async with asyncio.TaskGroup() as tasks:
            for number in range(60):
                tasks.create_task(prepare("ab"[number % 2]))
            while len(elsewhere.heads) < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            time.sleep(DEADLINE_SECONDS + 0.5)  # noqa: ASYNC251 - this is the pause
        assert clock.pauses > 0


async def test_action_that_fails_is_heard_of():
    """Not silently dead: whoever opened it gets the error."""
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
