"""`file:` references: regular files below allowed directories, no symbolic link followed.

The URI is percent-decoded once, before any check. Then each component is opened relative to the
directory descriptor of the one before, so that what was checked is what is read, whatever is
renamed or linked meanwhile.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Final, Self, TypeVar
from urllib.parse import unquote_to_bytes

from consumer.errors import Failed
from consumer.images.byte_budget import Reservation
from consumer.images.sources import BROKEN_PERCENT, display, forbidden, too_large, unavailable
from consumer.images.sources.daemon_threads import DaemonThreads
from imagelane.exits import ExitCode, FatalError
from schemas import Code

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO for reading would wait for its writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES: Final = 1 << 20
_AT_ONCE: Final = 16  # accesses to one root
_MAX_HUNG: Final = 64  # threads of one root that are given up and have not returned

T = TypeVar("T")

# /proc/self/environ has the secret; a request's digest could be a guess at it.
_OF_THE_KERNEL: Final = {"proc", "sys"}
_NAMES_NOTHING: Final = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_NOT_ALLOWED: Final = {
    errno.ELOOP: "a symbolic link is in its path",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENXIO: "not a regular file",  # a socket
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """An allowed directory: the names by which URIs may call it, and where it really is."""

    names: tuple[tuple[str, ...], ...]
    directory: Path
    threads: DaemonThreads = field(default_factory=lambda: DaemonThreads(_AT_ONCE, _MAX_HUNG))

    @classmethod
    def resolve(cls, path: str) -> Self:
        """Look once where `path` leads; it may be a symbolic link itself.

        Raises:
            FatalError: it is relative, `/`, the kernel's, missing, or not a directory.
        """
        parts = _components(path)
        if not path.startswith("/") or ".." in parts:
            raise FatalError(
                ExitCode.SETTINGS, f"FILE_ROOTS: {path}: give an absolute path without .."
            )
        try:
            directory = Path(path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or "not a path"
            raise FatalError(ExitCode.SETTINGS, f"FILE_ROOTS: {path}: {reason}") from exc
        if not directory.is_dir():
            raise _bad_root(f"{path}: not a directory")
        if directory == Path("/"):
            raise FatalError(
                ExitCode.SETTINGS, "FILE_ROOTS: / would allow every file; name a folder"
            )
        if directory.parts[1] in _OF_THE_KERNEL:
            raise FatalError(
                ExitCode.SETTINGS, f"FILE_ROOTS: {path}: the kernel's own files, no images"
            )
        return cls(names=(parts, directory.parts[1:]), directory=directory)

    def below(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the components of an absolute path below this root; None if it is elsewhere."""
        for name in self.names:
            if parts[: len(name)] == name:
                return parts[len(name) :]
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """Reads files below its roots; without a root, none.

    Each root has threads of its own: one on a network file system that hangs holds up nobody else.
    """

    roots: tuple[Root, ...]
    total_seconds: float = 30.0

    @classmethod
    def under(cls, paths: Iterable[str], *, total_seconds: float = 30.0) -> Self:
        """Make a source of `paths`, absolute directories; `total_seconds` bounds each access.

        Raises:
            FatalError: one of them cannot be a root.
        """
        return cls(roots=tuple(map(Root.resolve, paths)), total_seconds=total_seconds)

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> bytes:
        """Return the content of the file, read in a thread.

        Raises:
            Failed: `forbidden_source` (outside the roots, a link, not a regular file, no
                permission, not a plain file URI), `not_found`, `image_too_large`.
            Unavailable: the file system fails (input/output error, stale handle, ...) or hangs.
        """
        byte_length = await self._in_thread(self._measure, uri, max_bytes)
        # Thousands may wait here, so none of them has a descriptor. Some files do not say how long
        # they are; those count as the longest allowed.
        await reservation.resize(byte_length or max_bytes)
        data = await self._in_thread(self._read, uri, max_bytes)
        await reservation.resize(len(data))  # it may be another file by now
        return data

    async def _in_thread(self, call: Callable[[str, int], T], uri: str, max_bytes: int) -> T:
        root, _ = self._locate(uri)
        try:
            return await root.threads.run(partial(call, uri, max_bytes), self.total_seconds)
        except TimeoutError as exc:
            raise unavailable(uri, "the file system does not answer in time") from exc

    def _measure(self, uri: str, max_bytes: int) -> int:
        with self._open(uri, max_bytes) as file:
            return os.fstat(file).st_size

    def _read(self, uri: str, max_bytes: int) -> bytes:
        """Read with the limit, whatever length the file had: it may grow."""
        content = BytesIO()  # hands out what it holds without a copy
        left, deadline = max_bytes + 1, monotonic() + self.total_seconds
        with self._open(uri, max_bytes) as file:
            while left and (chunk := os.read(file, min(_CHUNK_BYTES, left))):
                left -= content.write(chunk)
                if monotonic() > deadline:
                    raise TimeoutError  # nobody waits for it any more
        if not left:
            raise too_large(uri, max_bytes)
        return content.getvalue()

    @contextmanager
    def _open(self, uri: str, max_bytes: int) -> Iterator[int]:
        """Open a descriptor of the file, which is checked anew each time."""
        root, parts = self._locate(uri)
        try:
            descriptor = _open_below(root.directory, parts)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise forbidden(uri, "not a regular file")
                if status.st_size > max_bytes:  # not read at all
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
        parts = _path_of(uri)
        for root in self.roots:
            below = root.below(parts)
            if below:
                return root, below
        raise forbidden(uri, "not below an allowed directory (FILE_ROOTS)")


def _path_of(uri: str) -> tuple[str, ...]:
    """Return the components of the absolute path that a file URI names."""
    rest = uri.partition(":")[2]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        if host.lower() not in ("", "localhost"):
            raise forbidden(uri, "a file URI may only name this host")
    if not rest.startswith("/"):
        raise forbidden(uri, "not an absolute path")
    if "?" in rest or "#" in rest or BROKEN_PERCENT.search(rest):
        raise forbidden(uri, "?, # and % in a file name must be percent-encoded")
    try:
        path = os.fsdecode(unquote_to_bytes(rest))
    except UnicodeEncodeError as exc:
        raise forbidden(uri, "not valid Unicode") from exc
    parts = _components(path)
    if "\0" in path or ".." in parts:
        raise forbidden(uri, "neither NUL nor .. may be in its path")
    return parts


def _components(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """Open a file by its components and return its descriptor; no symbolic link is followed."""
    directory = os.open(root, _DIRECTORY)
    try:
        for part in parts[:-1]:
            directory, parent = _open_at(part, _DIRECTORY, directory), directory
            os.close(parent)
        return _open_at(parts[-1], _FILE, directory)
    finally:
        os.close(directory)


def _open_at(name: str, flags: int, directory: int) -> int:
    try:
        return os.open(name, flags, dir_fd=directory)
    except NotADirectoryError as exc:
        # Linux says "not a directory" of a link too, when both flags are set.
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from exc
        raise


def _verdict(uri: str, error: OSError) -> Failed:
    if error.errno in _NAMES_NOTHING:
        return Failed(Code.NOT_FOUND, f"{display(uri)}: no such file")
    if error.errno in _NOT_ALLOWED:
        return forbidden(uri, _NOT_ALLOWED[error.errno])
    return unavailable(uri, f"{error.strerror}")


def _bad_root(reason: str) -> FatalError:
    return FatalError(ExitCode.SETTINGS, f"FILE_ROOTS: {reason}")
