"""The two programs that the examples start, and end in every case: the broker and the consumer.

Each is in a session of its own: Ctrl-C reaches the example alone, which then ends the consumer
before the broker that it commits to.
"""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from imagelane.exits import ExitCode, FatalError

ROOT: Final = Path(__file__).resolve().parents[1]
_BROKER: Final = ROOT / "build" / "broker"
_STOP_SECONDS: Final = 30
_LINE_BYTES: Final = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the consumer's log, and when it was read (monotonic seconds)."""

    name: str
    at: float
    outcome: str | None = None
    place: tuple[int, int] | None = None  # partition, offset
    seconds: float | None = None
    idle_seconds: float | None = None
    reason: str | None = None
    to: str | None = None


def parse_event(line: str, at: float) -> Event | None:
    """Return the event that a line of the log tells of; None for what a library printed."""
    try:
        told: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or not isinstance(told.get("event"), str):
        return None
    return Event(
        name=told["event"],
        at=at,
        outcome=told.get("outcome"),
        place=(told["partition"], told["offset"]) if "offset" in told else None,
        seconds=told.get("seconds"),
        idle_seconds=told.get("idle_seconds"),
        reason=told.get("reason"),
        to=told.get("to"),
    )


class Consumer:
    """`python -m consumer` as a child, and what it says of itself."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._news = asyncio.Condition()
        self._ended = False
        self.events: list[Event] = []
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def event(
        self, what: str, wanted: Callable[[Event], bool], *, timeout_seconds: float, after: int = 0
    ) -> Event:
        """Wait for the first wanted event from number `after` on.

        Raises:
            FatalError: it did not come in time, or the consumer ended.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                async for event in self.follow(after):
                    if wanted(event):
                        return event
        except TimeoutError as exc:
            raise FatalError(ExitCode.FAILED, f"not in the consumer's log in time: {what}") from exc
        raise ended_by_itself(await self.ended())

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events from number `after` on as they come, until the log ends."""
        while True:
            async with self._news:
                while len(self.events) <= after and not self._ended:
                    await self._news.wait()
            if len(self.events) <= after:
                return
            yield self.events[after]
            after += 1

    async def read(self) -> None:
        """Take in the log until it ends."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            event = parse_event(text, time.monotonic())
            if event is not None:
                async with self._news:
                    self.events.append(event)
                    self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()

    async def ended(self) -> int:
        """Wait for its end, its last words included; return the exit code, -N for signal N."""
        async with self._news:
            await self._news.wait_for(lambda: self._ended)
        return await self._process.wait()

    async def stop(self) -> int | None:
        """Ask it to stop (SIGTERM) and return its exit code; None if it had to be killed."""
        return await _stop(self._process)


@asynccontextmanager
async def running_consumer(environment: Mapping[str, str], folder: Path) -> AsyncIterator[Consumer]:
    """Run the consumer in `folder` while the body runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumer"),
        cwd=folder,
        env=environment,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    consumer = Consumer(process)
    reading = asyncio.create_task(consumer.read())
    try:
        yield consumer
    finally:
        await _stop(process)
        await reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The embedded broker as a child, and its address."""

    address: str
    process: Process

    async def end(self) -> None:
        """Wait until it ends by itself.

        Raises:
            FatalError: always, then.
        """
        code = await self.process.wait()
        raise FatalError(ExitCode.BROKER, f"the broker ended by itself, exit code {code}")


@asynccontextmanager
async def running_broker(folder: Path, port: int = 0) -> AsyncIterator[Broker]:
    """Run the embedded broker, its records in `folder`, while the body runs. Port 0 is a free one.

    Raises:
        FatalError: it is not built, or does not start.
    """
    if not _BROKER.exists():
        raise FatalError(ExitCode.BROKER, "build/broker is not there: `make broker` builds it")
    process = await asyncio.create_subprocess_exec(
        *(str(_BROKER), "--data", str(folder), "--port", str(port)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise FatalError(
                ExitCode.BROKER,
                f"build/broker does not start: is port {port} taken (`make up UP_PORT=9293` takes "
                "another), or is it old (`make broker`)?",
            )
        yield Broker(address=address, process=process)
    finally:
        await _stop(process)


async def while_running(consumer: Consumer, body: Coroutine[Any, Any, T]) -> T:
    """Return what `body` returns, unless the consumer ends before it.

    Raises:
        FatalError: it ended; with its own last words.
    """
    work, death = asyncio.create_task(body), asyncio.create_task(consumer.ended())
    try:
        await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ended_by_itself(death.result())
        return work.result()
    finally:
        work.cancel()
        death.cancel()
        await asyncio.wait({work, death})


def ended_by_itself(code: int, see: str = "its log") -> FatalError:
    """Return the error of a consumer that nobody asked to end; `see` is where it says why."""
    return FatalError(ExitCode.FAILED, f"the consumer ended by itself, exit code {code}; see {see}")


async def _stop(process: Process) -> int | None:
    """Ask it to stop; kill it if it does not, or if nobody may wait any longer."""
    if process.returncode is not None:
        return process.returncode
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


def resident_mib(pid: int) -> float | None:
    """Return the resident memory of a process in MiB; None where /proc does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def is_mapped(pid: int, mark: str) -> bool | None:
    """Tell whether a weight file with `mark` in its path is in the memory of a process."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return None
    return any(mark in line for line in maps)
