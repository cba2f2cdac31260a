"""A server that does what a hostile image host does, byte by byte, and names that lead to it."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from consumer.image_sources import fetch_limits, host_limiter, http_options
from consumer.images.loop_clock import LoopClock, every_tick
from consumer.images.sources.http import HttpSource
from consumer.images.sources.http_requests import HttpRequests
from consumer.settings import ConsumerSettings
from tests.fakes import SECRET

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
IMAGE = bytes(range(256)) * 40
MAX_BYTES = 200_000


@dataclass(slots=True)
class Server:
    """What is listening, what it does at each path, and what came."""

    port: int
    does: dict[str, Behaviour]
    heads: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]


@asynccontextmanager
async def serving(
    does: Mapping[str, Behaviour] | None = None,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    """Serve until the block ends, at `::` for IPv4 too; a path that is not named gets an image."""
    server = Server(port=0, does=dict(does or {}))
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                server.heads.append(head)
                await server.does.get(head.split(" ")[1], answer())(writer)
                await writer.drain()
        tasks.discard(task)
        writer.close()

    both = host == "::"
    family = socket.AF_INET6 if both else socket.AF_INET
    # asyncio's own sockets at `::` would be deaf to IPv4.
    listener = socket.create_server((host, 0), family=family, dualstack_ipv6=both)
    server.port = listener.getsockname()[1]
    listening = await asyncio.start_server(connected, sock=listener, ssl=tls)
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(body: bytes = IMAGE, status: str = "200 OK", **headers: str) -> Behaviour:
    """Give a whole answer. Names of headers are written with _ for -."""

    async def give(writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, **({"Content_Length": str(len(body))} | headers)) + body)

    return give


def head(status: str = "200 OK", **headers: str) -> bytes:
    """Return the head of an answer."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode("latin-1")


def redirect(location: str, status: str = "302 Found") -> Behaviour:
    """Send elsewhere."""
    return answer(b"", status, Location=location)


def raw(data: bytes, *, close: bool = True) -> Behaviour:
    """Give these bytes, whatever they are; `close` the connection or wait for the next request."""

    async def give(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return give


async def silent(writer: asyncio.StreamWriter) -> None:
    """Take the request and never answer."""
    await asyncio.sleep(3600)


async def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection in the middle of the body, as a crash does."""
    writer.write(head(Content_Length="1000") + b"x" * 10)
    await writer.drain()
    writer.transport.abort()


async def slow_head(writer: asyncio.StreamWriter) -> None:
    """Send a head that never ends, a byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    await _each(writer, b"y", 0.01)


async def endless_head(writer: asyncio.StreamWriter) -> None:
    """Send headers for ever, as fast as they are taken."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await _each(writer, b"X-Header: y\r\n" * 1000)


async def endless_hints(writer: asyncio.StreamWriter) -> None:
    """Send interim answers for ever."""
    await _each(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01)


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Promise a large image, and send a byte of it now and then."""
    writer.write(head(Content_Length=str(MAX_BYTES)))
    await _each(writer, b"x", 0.01)


async def endless_chunks(writer: asyncio.StreamWriter) -> None:
    """Send a chunked body that never ends, as fast as it is taken."""
    writer.write(head(Transfer_Encoding="chunked"))
    await _each(writer, b"1000\r\n" + b"x" * 4096 + b"\r\n")


async def endless_trailers(writer: asyncio.StreamWriter) -> None:
    """End a chunked body with trailers that never end."""
    writer.write(head(Transfer_Encoding="chunked") + b"1\r\nx\r\n0\r\n")
    await _each(writer, b"X-Trailer: y\r\n" * 1000)


def gzip_bomb() -> Behaviour:
    """Give a small body that unpacks to ten megabytes."""
    return answer(gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")


async def _each(writer: asyncio.StreamWriter, data: bytes, pause_seconds: float = 0) -> None:
    while True:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause_seconds)


class Names(AbstractResolver):
    """Resolves names by a table: a list of answers, the last of which stays, each of addresses.

    `port`: where to connect instead, for tests of default ports, which need no privilege then.
    """

    def __init__(self, port: int | None = None, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(list_) for name, list_ in answers.items()}
        self.asked: list[str] = []
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Satisfy aiohttp."""
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(None, "no such name")
        answers = self.answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            {
                "hostname": host,
                "host": address,
                "port": self.port or port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        """Satisfy aiohttp."""


def http_settings(**changes: object) -> ConsumerSettings:
    """Return settings with deadlines that nothing on a busy machine misses."""
    fields: dict[str, object] = {
        "secret_api_key": SECRET.decode(),
        "fetch_connect_seconds": 60,
        "fetch_idle_seconds": 60,
        "fetch_total_seconds": 60,
        "fetch_grace_seconds": 60,
        "fetch_min_bytes_per_second": 5000,
    }
    return ConsumerSettings.model_validate(fields | changes)


HASTY: Final[dict[str, Any]] = {
    "fetch_connect_seconds": 1,
    "fetch_idle_seconds": 0.3,
    "fetch_total_seconds": 0.8,
    "fetch_grace_seconds": 0.2,
}
"""Deadlines that a test can wait for."""


@asynccontextmanager
async def opened(
    server: Server, resolver: AbstractResolver | None = None, **changes: object
) -> AsyncIterator[HttpSource[bytes]]:
    """Open a source that may ask `server` as `image.test`, and nobody else."""
    fields: dict[str, object] = {
        "allowed_hosts": (f"image.test:{server.port}",),
        "allowed_networks": ("127.0.0.0/8",),
    }
    resolver = resolver or Names(image_test=[["127.0.0.1"]])
    async with http_source(http_settings(**fields | changes), resolver) as source:
        yield source


@asynccontextmanager
async def http_source(
    settings: ConsumerSettings,
    resolver: AbstractResolver | None = None,
    clock: LoopClock | None = None,
) -> AsyncIterator[HttpSource[bytes]]:
    """Open the source of these settings."""
    clock = clock or LoopClock()
    options, limiter = http_options(settings), host_limiter(settings, clock)
    requests = HttpRequests.open(options, fetch_limits(settings), resolver)
    async with every_tick(clock.tick), requests.session, every_tick(limiter.sweep):
        yield HttpSource(
            rules=options.rules(),
            limiter=limiter,
            ask=requests.ask,
            total_seconds=settings.fetch_total_seconds,
        )
