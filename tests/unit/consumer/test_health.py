"""The port of the probes: what is asked over real HTTP."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from consumer.runtime.readiness import Readiness
from consumer.runtime.stop import StopRequest
from consumer.runtime.watchdog import Bounds, Liveness, Snapshot, watch
from consumer.telemetry.health import serve
from consumer.telemetry.state import Components, ProcessState
from imagelane.exits import ExitCode, FatalError
from tests.conftest import ROOT
from tests.metrics_page import probe


class Stream:
    """A member of the group, or not."""

    joined = True


class WarmComponents:
    """What a probe asks of a consumer that is at work."""

    def __init__(self) -> None:
        self.stream = Stream()


class Page:
    """Counts how often the metrics were made."""

    def __init__(self) -> None:
        self.made = 0

    async def __call__(self) -> bytes:
        self.made += 1
        return b"# metrics\n"


def _state(*, warm: bool = True) -> ProcessState:
    components = cast(Components, WarmComponents()) if warm else None
    return ProcessState(readiness=Readiness(), stop=StopRequest(), components=components)


@asynccontextmanager
async def _port(state: ProcessState, page: Page | None = None) -> AsyncIterator[int]:
    with capture_logs() as lines:
        async with serve(state, page or Page(), host="127.0.0.1", port=0):
            yield lines[0]["port"]


async def _get(port: int, path: str) -> tuple[int, str]:
    return await asyncio.to_thread(probe, port, path)


async def test_readyz_says_every_reason() -> None:
    """Models that are not warm, no member, a cause that somebody found, a stop."""
    state = _state(warm=False)
    async with _port(state) as port:
        assert await _get(port, "/readyz") == (503, "start: the models are not warm yet\n")
        state.components = cast(Components, WarmComponents())
        assert await _get(port, "/readyz") == (200, "ready\n")
        cast(Any, state.components).stream.joined = False
        state.readiness.block("transaction:t-0", "held back")
        status, text = await _get(port, "/readyz")
        assert status == 503
        assert set(text.splitlines()) == {
            "transaction:t-0: held back",
            "group: it is no member of the consumer group",
        }
        cast(Any, state.components).stream.joined = True
        state.readiness.clear("transaction:t-0")
        state.stop.asked = True
        assert await _get(port, "/readyz") == (503, "stop: it was asked to stop\n")


async def test_livez_is_what_the_watchdog_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not live before its first look, nor while it finds a fault; not ready is live."""
    monkeypatch.setattr("consumer.runtime.watchdog.CHECK_SECONDS", 0.001)
    state = _state()
    state.readiness.block("transaction:t-0", "held back")
    seen = Snapshot(joined=True, work={})
    looked = asyncio.Event()

    class Noted(Liveness):
        def note(self, fault: str | None, lag_seconds: float) -> None:
            super().note(fault, lag_seconds)
            looked.set()

    state.liveness = Noted()
    bounds = Bounds(join_seconds=0.001, progress_seconds=60, loop_seconds=60, end_seconds=60)
    async with _port(state) as port:
        assert await _get(port, "/livez") == (503, "starting\n")
        watching = asyncio.create_task(
            watch(
                bounds,
                lambda: seen,
                state.readiness,
                end_loop_seconds=60,
                liveness=state.liveness,
                alive=None,
            )
        )
        try:
            async with asyncio.timeout(30):
                await looked.wait()
                assert await _get(port, "/livez") == (200, "live\n")
                seen = Snapshot(joined=False, work={})
                looked.clear()
                await looked.wait()
            status, text = await _get(port, "/livez")
        finally:
            watching.cancel()
    assert (status, text.startswith("not in the group")) == (503, True)
    assert state.liveness.loop_lag_seconds.buckets[-1][1] >= 2


async def test_metrics_are_made_once_for_many_who_ask() -> None:
    """A flood of scrapes costs no more than one a second."""
    page = Page()
    async with _port(_state(), page) as port:
        answers = await asyncio.gather(*(_get(port, "/metrics") for _ in range(20)))
    assert set(answers) == {(200, "# metrics\n")}
    assert page.made < 20


async def test_image_is_healthy_while_it_is_live() -> None:
    """The health check of the Dockerfile, as Docker runs it."""
    text = (ROOT / "consumer/Dockerfile").read_text().replace("\\\n", "")
    [line] = [line for line in text.splitlines() if line.startswith("HEALTHCHECK")]
    _, *command = json.loads(line.partition("CMD ")[2])
    state = _state()

    async def check() -> int:
        checking = await asyncio.create_subprocess_exec(
            sys.executable, *command, env={"HEALTH_PORT": str(port)}
        )
        return await checking.wait()

    async with _port(state) as port:
        assert await check() == 1
        state.liveness.note(None, 0.0)
        assert await check() == 0
    assert await check() == 1


async def test_nothing_else_is_answered() -> None:
    """No other path and no other method than GET."""
    async with _port(_state()) as port:
        assert (await _get(port, "/"))[0] == 404
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"405"
        writer.close()


async def test_port_that_is_taken_stops_the_start() -> None:
    """As a fault of the settings, with the setting's name."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(FatalError, match="HEALTH_PORT") as caught,
    ):
        async with serve(_state(), Page(), host="127.0.0.1", port=taken.getsockname()[1]):
            pass
    assert caught.value.code is ExitCode.SETTINGS
