"""`file:` references: regular files below allowed directories, as `imagelane.files` opens them."""

import asyncio
import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from time import monotonic
from typing import Final, Self

from consumer.errors import Failed
from consumer.images.sources import Room, forbidden, too_large, unavailable
from consumer.images.sources.daemon_threads import DaemonThreads
from imagelane.exits import ExitCode, FatalError
from imagelane.files import BadPath, Root, path_of
from imagelane.uris import display
from schemas import Code

_CHUNK_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = 512 << 10  # read before they are reserved, by each access to a root
_AT_ONCE: Final = 16  # accesses to one root at once
_MAX_HUNG: Final = 64  # threads of one root that hang

_OpenFile = Callable[[], AbstractContextManager[int]]

_NAMES_NOTHING: Final = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_NOT_ALLOWED: Final = {
    errno.ELOOP: "a symbolic link is in its path",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENXIO: "not a regular file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """Reads files below its roots; without a root, none.

    Each root has threads of its own: a network file system that hangs holds up no other root.
    """

    roots: tuple[Root, ...]
    total_seconds: float = 30.0
    threads: defaultdict[Root, DaemonThreads] = field(
        default_factory=lambda: defaultdict(lambda: DaemonThreads(_AT_ONCE, _MAX_HUNG))
    )
    # A small file has a place here from its read until its bytes are reserved. It waits for memory
    # without a place of `threads`: large files hold memory while they wait for one of those.
    unreserved: defaultdict[Root, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
    )

    @classmethod
    def under(cls, paths: Iterable[str], *, total_seconds: float = 30.0) -> Self:
        """Make a source of `paths`, absolute directories; `total_seconds` bounds each access.

        Raises:
            FatalError: one of them cannot be a root.
        """
        try:
            roots = tuple(map(Root.resolve, paths))
        except BadPath as exc:
            raise FatalError(ExitCode.SETTINGS, f"FILE_ROOTS: {exc}") from exc
        return cls(roots=roots, total_seconds=total_seconds)

    async def fetch(self, uri: str, max_bytes: int, room: Room) -> bytes:
        """Return the content of the file, read in a thread.

        Raises:
            Failed: `forbidden_source` (outside the roots, a link, not a regular file, no
                permission, not a plain file URI), `not_found`, `image_too_large`.
            Unavailable: the file system fails (input/output error, stale handle, ...) or hangs.
        """
        root, parts = self._locate(uri)
        file = partial(self._open, root, parts, uri, max_bytes)
        threads = self.threads[root]
        try:
            # A small file is read in one hop, before it is reserved.
            async with self.unreserved[root]:
                async with threads.place():
                    read = partial(self._read_if_small, file)
                    found = await threads.run(read, self.total_seconds)
                if isinstance(found, bytes):
                    await room.resize(len(found))
                    return found
            # Thousands may wait here, so none of them keeps a descriptor. A file of unknown length
            # counts as the longest allowed.
            await room.resize(found or max_bytes)
            async with threads.place():
                return await threads.run(
                    partial(self._read_whole, file, uri, max_bytes), self.total_seconds
                )
        except TimeoutError as exc:
            raise unavailable(uri, "the file system does not answer in time") from exc

    def _read_if_small(self, open_file: _OpenFile) -> bytes | int:
        """Return the content of a small file, else its length in bytes; 0: unknown."""
        with open_file() as file:
            byte_length = os.fstat(file).st_size
            if 0 < byte_length <= _SMALL_BYTES:
                data = self._read(file, byte_length, _SMALL_BYTES)
                if len(data) <= _SMALL_BYTES:
                    return data
                byte_length = os.fstat(file).st_size  # it grew
            return byte_length

    def _read_whole(self, open_file: _OpenFile, uri: str, max_bytes: int) -> bytes:
        """Read the file; it may have grown over the limit meanwhile."""
        with open_file() as file:
            data = self._read(file, os.fstat(file).st_size, max_bytes)
        if len(data) > max_bytes:
            raise too_large(uri, max_bytes)
        return data

    def _read(self, file: int, byte_length: int, max_bytes: int) -> bytes:
        """Read up to one byte more than `max_bytes`; without a copy if `byte_length` is right."""
        left, deadline = max_bytes + 1, monotonic() + self.total_seconds
        first = os.read(file, min(byte_length + 1, _CHUNK_BYTES, left))
        left -= len(first)
        if not first or not left or not (chunk := os.read(file, min(_CHUNK_BYTES, left))):
            return first
        content = BytesIO()  # `getvalue` copies nothing
        content.write(first)
        while chunk:
            left -= content.write(chunk)
            if monotonic() > deadline:
                raise TimeoutError  # the caller has given up
            chunk = os.read(file, min(_CHUNK_BYTES, left)) if left else b""
        return content.getvalue()

    @contextmanager
    def _open(self, root: Root, parts: tuple[str, ...], uri: str, max_bytes: int) -> Iterator[int]:
        """Open a descriptor of the file, which is checked anew each time."""
        try:
            descriptor = root.open(parts)
            try:
                if os.fstat(descriptor).st_size > max_bytes:  # not read at all
                    raise too_large(uri, max_bytes)
                yield descriptor
            finally:
                os.close(descriptor)
        except TimeoutError:
            raise
        except OSError as exc:
            raise _verdict(uri, exc) from exc

    def _locate(self, uri: str) -> tuple[Root, tuple[str, ...]]:
        """Return the root and the components below it. No IO."""
        try:
            parts = path_of(uri)
        except BadPath as exc:
            raise forbidden(uri, str(exc)) from exc
        for root in self.roots:
            below = root.below(parts)
            if below:
                return root, below
        raise forbidden(uri, "not below an allowed directory (FILE_ROOTS)")


def _verdict(uri: str, error: OSError) -> Failed:
    if error.errno in _NAMES_NOTHING:
        return Failed(Code.NOT_FOUND, f"{display(uri)}: no such file")
    if error.errno in _NOT_ALLOWED:
        return forbidden(uri, _NOT_ALLOWED[error.errno])
    return unavailable(uri, f"{error.strerror}")
