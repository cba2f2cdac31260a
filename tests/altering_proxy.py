"""A TCP proxy before a real broker that alters its answers, as the test asks.

Every answer is the broker's own, but for what a test changes in it, so that each error code can be
had at the moment that matters. Clients stay on the proxy: the addresses that the broker advertises
are replaced by the proxy's.
"""

import asyncio
import io
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka.protocol import admin, commit, coordination, fetch, metadata, offset
from aiokafka.protocol.api import Response

METADATA, FIND_COORDINATOR, OFFSET_FETCH = 3, 10, 9
FETCH, LIST_OFFSETS, DESCRIBE_CONFIGS = 1, 2, 32

Alter = Callable[[dict[str, Any]], None]
"""Changes an answer, given as names and values, in place. It may raise to cut the connection."""

_ANSWERS = {
    (answer.API_KEY, answer.API_VERSION): answer  # type: ignore[attr-defined]
    for module in (admin, commit, coordination, fetch, metadata, offset)
    for answer in vars(module).values()
    if isinstance(answer, type) and issubclass(answer, Response) and answer is not Response
}


@dataclass(slots=True)
class AlteringProxy:
    """What it changes now, by the number of the request. A test sets it while clients run."""

    target: tuple[str, int]
    alter: dict[int, Alter] = field(default_factory=dict)
    altered: Counter[int] = field(default_factory=Counter)
    advertised: tuple[str, int] = ("", 0)
    port: int = 0
    _serving: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        broker_reader, broker_writer = await asyncio.open_connection(*self.target)
        requests: dict[int, tuple[int, int]] = {}  # correlation id -> api key, version
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._requests(reader, broker_writer, requests))
                ways.create_task(self._answers(broker_reader, writer, requests))
        except* (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # an end of it is closed, by whomever
        finally:
            ends = (writer, broker_writer)
            for end in ends:
                end.close()
            for end in ends:
                with suppress(ConnectionError, asyncio.CancelledError):
                    await end.wait_closed()
            self._serving.discard(task)

    async def close(self) -> None:
        """Cut every connection."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        broker: asyncio.StreamWriter,
        requests: dict[int, tuple[int, int]],
    ) -> None:
        while True:
            frame = await _frame(reader)
            api_key, version, correlation_id = struct.unpack(">hhi", frame[:8])
            requests[correlation_id] = api_key, version
            await _send(broker, frame)

    async def _answers(
        self,
        broker: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: dict[int, tuple[int, int]],
    ) -> None:
        while True:
            frame = await _frame(broker)
            api_key, version = requests.pop(struct.unpack(">i", frame[:4])[0])
            if api_key in (METADATA, FIND_COORDINATOR) or api_key in self.alter:
                body = self._changed(_ANSWERS[api_key, version], frame[4:])
                frame = frame[:4] + body
            await _send(writer, frame)

    def _changed(self, kind: type[Response], body: bytes) -> bytes:
        answer = kind.decode(io.BytesIO(body)).to_object()
        brokers = answer.get("brokers", [answer] if "coordinator_id" in answer else [])
        for broker in brokers:
            broker["host"], broker["port"] = self.advertised
        if alter := self.alter.get(kind.API_KEY):
            alter(answer)
            self.altered[kind.API_KEY] += 1
        return kind.SCHEMA.encode(_values(answer))


def _values(value: Any) -> Any:
    """Turn names and values back into what a schema encodes, which is values in their order."""
    if isinstance(value, dict):
        return [_values(item) for item in value.values()]
    return [_values(item) for item in value] if isinstance(value, list) else value


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
    await writer.drain()


@asynccontextmanager
async def altering_proxy(bootstrap: str) -> AsyncIterator[AlteringProxy]:
    """Serve before the broker at `bootstrap`, on a free port of loopback, until the block ends."""
    host, _, port = bootstrap.rpartition(":")
    made = AlteringProxy((host, int(port)))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    made.advertised = ("127.0.0.1", made.port)
    try:
        yield made
    finally:
        server.close()
        await made.close()
