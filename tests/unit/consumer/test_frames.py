"""Frames and descriptors between two processes: whole, in order, bounded, none left open."""

import asyncio
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consumer.images.frames import LENGTH, Frames

MAX_BYTES = 1 << 20


@dataclass(slots=True)
class End:
    """One end, and what came."""

    frames: Frames
    received: list[bytes] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, end: socket.socket, max_bytes: int = MAX_BYTES) -> "End":
        received, lost = list[bytes](), list[str]()
        frames = Frames(end, max_bytes=max_bytes, received=received.append, lost=lost.append)
        return cls(frames, received, lost)

    async def has(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.received) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def is_lost(self) -> str:
        async with asyncio.timeout(20):
            while not self.lost:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        (reason,) = self.lost
        return reason


def _pair() -> tuple[End, End]:
    one, other = socket.socketpair()
    return End.of(one), End.of(other)


def _file(text: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, text)
    return descriptor


def _open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


async def test_frames_come_whole_and_in_order_also_when_the_socket_is_full() -> None:
    """Small, empty and larger than the socket takes, sent in one turn."""
    one, other = _pair()
    sent = [bytes([n % 256]) * (n * 37 % 5000) for n in range(2000)] + [bytes(MAX_BYTES)] * 5
    for frame in sent:
        one.frames.send(frame)
    other.frames.send(b"back")
    await other.has(len(sent))
    await one.has(1)
    assert other.received == sent
    assert one.received == [b"back"]
    one.frames.close()
    other.frames.close()


async def test_descriptors_come_in_the_order_in_which_they_were_sent() -> None:
    """Hundreds in one turn, between frames that have none; the sender's are closed."""
    before = _open_descriptors()
    one, other = _pair()
    for number in range(500):
        with_one = number % 3 == 0
        one.frames.send(b"%d" % number, _file(b"%d" % number) if with_one else None)
    await other.has(500)
    taken = [other.frames.take_descriptor() for _ in range(0, 500, 3)]
    assert [int(os.pread(descriptor, 9, 0)) for descriptor in taken] == list(range(0, 500, 3))
    with pytest.raises(ValueError, match="missing"):
        other.frames.take_descriptor()
    assert not any(map(os.get_inheritable, taken))
    for descriptor in taken:
        os.close(descriptor)
    one.frames.close()
    other.frames.close()
    assert _open_descriptors() == before


async def test_end_of_the_other_side_is_told_once_and_leaves_nothing_open() -> None:
    """Neither what came and was not taken, nor what is still to be sent."""
    before = _open_descriptors()
    one, other = _pair()
    one.frames.send(b"a", _file(b"a"))
    await other.has(1)
    one.frames.close()
    assert await other.is_lost() == "it ended"
    other.frames.send(b"b", _file(b"b"))
    await asyncio.sleep(0)
    assert one.lost == []
    assert _open_descriptors() == before


async def test_frame_over_the_limit_ends_it() -> None:
    """Nothing of it is gathered."""
    one, other = socket.socketpair()
    end = End.of(other, max_bytes=10)
    one.sendall(LENGTH.pack(10) + bytes(10) + LENGTH.pack(11))
    assert "over the limit" in await end.is_lost()
    assert end.received == [bytes(10)]
    one.close()


async def test_frame_that_the_receiver_refuses_ends_it() -> None:
    """A ValueError of the receiver is the other side's fault."""
    one, other = socket.socketpair()
    lost: list[str] = []

    def refuse(frame: bytes) -> None:
        raise ValueError("no such message")

    Frames(other, max_bytes=10, received=refuse, lost=lost.append)
    one.sendall(LENGTH.pack(1) + b"x")
    async with asyncio.timeout(20):
        while not lost:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert "no such message" in lost[0]
    one.close()
