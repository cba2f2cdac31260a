"""Frames and descriptors between two processes, over a stream socket and one event loop.

A frame is its byte length and its bytes. One system call sends all frames of one turn of the loop,
and one receives all that arrived: at thousands of frames a second, system calls and wake-ups are
the cost. Descriptors arrive in the order in which they were sent.
"""

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

LENGTH: Final = struct.Struct(">I")
_READ_BYTES: Final = 256 << 10
_WRITE_BYTES: Final = 128 << 10
_MAX_DESCRIPTORS: Final = 64  # in one call; the kernel takes 253
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux


class Frames:
    """One end of a socket. `received` is called with each frame, `lost` once, with the reason."""

    def __init__(
        self,
        end: socket.socket,
        *,
        max_bytes: int,
        received: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        self._socket = end
        self._socket.setblocking(False)
        self._max_bytes = max_bytes
        self._received, self._lost = received, lost
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, int | None]] = deque()
        self._text = b""  # of the next system call, with `_handing_over`
        self._handing_over: list[int] = []
        self._is_flushing = self._is_blocked = False
        self._is_open = True
        self._loop.add_reader(end, self._read)

    def send(self, frame: bytes, descriptor: int | None = None) -> None:
        """Send a frame, at the end of this turn of the loop; the descriptor is closed after it."""
        if not self._is_open:
            if descriptor is not None:
                os.close(descriptor)
            return
        self._outgoing.append((LENGTH.pack(len(frame)) + frame, descriptor))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def take_descriptor(self) -> int:
        """Return the next descriptor that came; the caller closes it.

        Raises:
            ValueError: none came.
        """
        if not self._descriptors:
            raise ValueError("a descriptor is missing")
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close the socket, and every descriptor that is on its way; `lost` is not called."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        _close(self._descriptors)
        _close(self._handing_over)
        _close(held for _, held in self._outgoing if held is not None)
        self._descriptors.clear()
        self._handing_over.clear()
        self._outgoing.clear()

    def _lose(self, reason: str) -> None:
        if self._is_open:
            self.close()
            self._lost(reason)

    def _read(self) -> None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _READ_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC
            )
        except BlockingIOError:
            return
        except OSError as exc:
            self._lose(f"its socket broke: {exc.strerror}")
            return
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(content) - len(content) % 4
                self._descriptors.extend(array.array("i", content[:whole]))
        if flags & socket.MSG_CTRUNC:
            self._lose("the limit of descriptors (RLIMIT_NOFILE) is too low")
        if not data:
            self._lose("it ended")
        self._incoming += data
        try:
            self._hand_out()
        except ValueError as exc:
            self._lose(f"it said what it may not: {exc}")

    def _hand_out(self) -> None:
        at, incoming = 0, self._incoming
        while len(incoming) - at >= LENGTH.size and self._is_open:
            (length,) = LENGTH.unpack_from(incoming, at)
            if length > self._max_bytes:
                raise ValueError("a frame over the limit")
            end = at + LENGTH.size + length
            if len(incoming) < end:
                break
            frame = bytes(incoming[at + LENGTH.size : end])
            at = end
            self._received(frame)
        del incoming[:at]

    def _flush(self) -> None:
        self._is_flushing = False
        while self._is_open and self._fill():
            try:
                sent = socket.send_fds(self._socket, [self._text], self._handing_over)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                self._is_blocked = True
                return
            except OSError as exc:
                self._lose(f"its socket broke: {exc.strerror}")
                return
            self._text = self._text[sent:]
            _close(self._handing_over)
            self._handing_over = []
        if self._is_blocked and self._is_open:
            self._loop.remove_writer(self._socket)
            self._is_blocked = False

    def _fill(self) -> bool:
        """Take the next frames to send, if all before them are sent; False if there are none."""
        parts, size = list[bytes](), 0
        while not self._text and self._outgoing and size < _WRITE_BYTES:
            text, descriptor = self._outgoing.popleft()
            parts.append(text)
            size += len(text)
            if descriptor is not None:
                self._handing_over.append(descriptor)
                if len(self._handing_over) == _MAX_DESCRIPTORS:
                    break
        self._text = self._text or b"".join(parts)
        return bool(self._text)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
