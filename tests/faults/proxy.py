"""A TCP proxy between consumers and the broker: delays, goes deaf, cuts one answer, is late.

It takes the place of the advertised address, so that every connection passes it, and it looks at
request headers only: which request it is and its correlation id.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

ADD_OFFSETS = 25  # Kafka's numbers of the requests: AddOffsetsToTxn
END_TXN = 26


@dataclass(slots=True)
class Late:
    """One EndTxn that overtakes nothing: it reaches the broker in the transaction after its own.

    The connection of the `number`th EndTxn is lost to the consumer, not to the broker. Once it was
    sent again, the kept one is handed on behind the next transaction's outputs.
    """

    number: int
    delivered: bool = False
    _kept: tuple[bytes, asyncio.StreamWriter] | None = None
    _sent_again: bool = False

    async def look(self, api_key: int, frame: bytes, broker: asyncio.StreamWriter) -> bool:
        """Return whether to lose this request's connection to the consumer."""
        if api_key == END_TXN and self._kept is None:
            self.number -= 1
            if self.number == 0:
                self._kept = frame, broker
                return True
        elif api_key == END_TXN:
            self._sent_again = True
        elif api_key == ADD_OFFSETS and self._sent_again and self._kept and not self.delivered:
            kept, way = self._kept
            way.write(kept)
            await way.drain()
            self.delivered = True
            await asyncio.sleep(0.5)  # by then the broker has acted on it
        return False


@dataclass(slots=True)
class Proxy:
    """What it does to the traffic now. A test changes these while consumers run."""

    target_port: int
    delay_seconds: float = 0.0
    deaf: bool = False  # half-open: takes everything and hands nothing on
    cuts: int = 0  # how many answers to EndTxn are still to be cut
    cut: int = 0  # how many were
    late: Late | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        doomed: set[int] = set()  # correlation ids of the requests whose answer is cut
        self._writers |= {writer, broker_writer}
        with suppress(ConnectionError, asyncio.IncompleteReadError, ExceptionGroup):
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._requests(reader, writer, broker_writer, doomed))
                ways.create_task(self._answers(broker_reader, writer, doomed))
        for end in (writer, broker_writer):
            self._writers.discard(end)
            end.close()

    def close(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        consumer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        doomed: set[int],
    ) -> None:
        while True:
            frame = await _frame(reader)
            api_key, _, correlation_id = struct.unpack(">hhi", frame[4:12])
            if api_key == END_TXN and self.cuts:
                self.cuts -= 1
                doomed.add(correlation_id)
            if self.late and await self.late.look(api_key, frame, writer):
                consumer.close()
                await asyncio.Event().wait()  # the broker's end stays open
            await self._pass_on(frame, writer)

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: set[int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            if struct.unpack(">i", frame[4:8])[0] in doomed:
                self.cut += 1
                raise ConnectionResetError("the answer to EndTxn is cut")
            await self._pass_on(frame, writer)

    async def _pass_on(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.delay_seconds)
        if not self.deaf:
            writer.write(frame)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack(">i", length)[0])


@asynccontextmanager
async def proxy(port: int, target_port: int) -> AsyncIterator[Proxy]:
    """Serve on `port` of loopback until the block ends."""
    made = Proxy(target_port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port)
    try:
        yield made
    finally:
        server.close()
        made.close()
