"""The one port of the process: /livez, /readyz and /metrics.

It is served on the event loop of the records on purpose: a stalled loop answers no probe, so the
probe's timeout notices it before the watchdog ends the process.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from consumer.telemetry.collector import exposition as exposition_of
from consumer.telemetry.state import ProcessState
from imagelane.exits import ExitCode, FatalError

log = structlog.get_logger()

METRICS_TYPE: Final = "text/plain; version=0.0.4"
_MAX_AGE_SECONDS: Final = 1.0  # of the metrics, which may be scraped more often
_CLOSE_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 30.0  # Prometheus keeps its connection from one scrape to the next

Exposition = Callable[[], Awaitable[bytes]]


def open_port(state: ProcessState, *, host: str, port: int) -> AbstractAsyncContextManager[None]:
    """Return the server of `state` and its metrics."""
    return serve(state, partial(exposition_of, state), host=host, port=port)


@asynccontextmanager
async def serve(
    state: ProcessState, exposition: Exposition, *, host: str, port: int
) -> AsyncIterator[None]:
    """Serve the port until the block ends; 0: a free one, which the log names.

    Raises:
        FatalError: `SETTINGS`: the port cannot be opened.
    """
    runner = web.AppRunner(
        _application(state, exposition),
        access_log=None,
        keepalive_timeout=_IDLE_SECONDS,
        shutdown_timeout=_CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            raise FatalError(
                ExitCode.SETTINGS,
                f"HEALTH_PORT: {host}:{port}: {exc.strerror}; name an address of this machine and "
                "a port that is free",
            ) from exc
        log.info("health", host=host, port=runner.addresses[0][1])
        yield
    finally:
        await runner.cleanup()


def _application(state: ProcessState, exposition: Exposition) -> web.Application:
    page = _Page(exposition)

    async def livez(_: web.Request) -> web.Response:
        fault = state.liveness.fault
        return _answer(fault is None, fault or "live")

    async def readyz(_: web.Request) -> web.Response:
        reasons = [f"{cause}: {reason}" for cause, reason in state.reasons.items()]
        return _answer(not reasons, "\n".join(reasons) or "ready")

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": f"{METRICS_TYPE}; charset=utf-8"}
        return web.Response(body=await page.body(), headers=headers)

    application = web.Application(client_max_size=1024)
    application.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
        ]
    )
    return application


class _Page:
    """The page of metrics, rendered once a second at most: frequent scrapes must cost little."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._rendering = asyncio.Lock()
        self._body = b""
        self._rendered_at = float("-inf")

    async def body(self) -> bytes:
        async with self._rendering:
            now = time.monotonic()
            if now - self._rendered_at >= _MAX_AGE_SECONDS:
                self._body = await self._exposition()
                self._rendered_at = now
        return self._body


def _answer(good: bool, text: str) -> web.Response:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return web.Response(text=f"{text}\n", status=status)
