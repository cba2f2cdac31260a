"""Regular files below allowed directories, opened so that no symbolic link is followed.

A `file:` URI is percent-decoded once, before any check. Then each component is opened relative to
its parent's descriptor, so no rename or link in between changes which file is read.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote_to_bytes

# Percent-decoding keeps these as they are, and another program may read them otherwise.
BROKEN_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO for reading would wait for its writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# /proc/self/environ has the secret, and a request's `sha256` could test a guess at it.
_OF_THE_KERNEL: Final = {"proc", "sys"}


class BadPath(ValueError):
    """A path or URI without a file that may be read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """An allowed directory: its names in URIs, and its real path."""

    names: tuple[tuple[str, ...], ...]
    directory: Path

    @classmethod
    def resolve(cls, path: str) -> Self:
        """Resolve `path` once; it may be a symbolic link itself.

        Raises:
            BadPath: it is relative, `/`, the kernel's, missing, or not a directory.
        """
        parts = _components(path)
        if not path.startswith("/") or ".." in parts:
            raise BadPath(f"{path}: give an absolute path without ..")
        try:
            directory = Path(path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or "not a path"
            raise BadPath(f"{path}: {reason}") from exc
        if not directory.is_dir():
            raise BadPath(f"{path}: not a directory")
        if directory == Path("/"):
            raise BadPath("/ would allow every file; name a folder")
        if directory.parts[1] in _OF_THE_KERNEL:
            raise BadPath(f"{path}: the kernel's own files, no images")
        return cls(names=(parts, directory.parts[1:]), directory=directory)

    def below(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the components of an absolute path below this root; None if it is elsewhere."""
        for name in self.names:
            if parts[: len(name)] == name:
                return parts[len(name) :]
        return None

    def open(self, parts: tuple[str, ...]) -> int:
        """Open the regular file at these components below the root; return its descriptor.

        Raises:
            OSError: as `open` does; ELOOP: a symbolic link is in its path; ENXIO: it is a FIFO, a
                device, a directory or a socket.
        """
        descriptor = _open_below(self.directory, parts)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def path_of(uri: str) -> tuple[str, ...]:
    """Return the components of the absolute path that a file URI names.

    Raises:
        BadPath: it names another host, or a relative or ambiguous path.
    """
    rest = uri.partition(":")[2]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        if host.lower() not in ("", "localhost"):
            raise BadPath("a file URI may only name this host")
    if not rest.startswith("/"):
        raise BadPath("not an absolute path")
    if "?" in rest or "#" in rest or BROKEN_PERCENT.search(rest):
        raise BadPath("?, # and % in a file name must be percent-encoded")
    try:
        path = os.fsdecode(unquote_to_bytes(rest))
    except UnicodeEncodeError as exc:
        raise BadPath("not valid Unicode") from exc
    parts = _components(path)
    if "\0" in path or ".." in parts:
        raise BadPath("neither NUL nor .. may be in its path")
    return parts


def _components(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """Open a file by its components, and return its descriptor; follow no symbolic link."""
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
        # With O_DIRECTORY and O_NOFOLLOW Linux reports a link as "not a directory", too.
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from exc
        raise
