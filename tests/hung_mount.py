"""A file system that never answers: FUSE without anybody behind it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MNT_DETACH = 2


@contextmanager
def hung_mount(folder: Path) -> Iterator[None]:
    """Let every access to `folder` hang until the block ends; skip where nobody may mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        pytest.skip(f"no /dev/fuse: {exc}")
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    try:
        if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"may not mount: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(device)  # ends the accesses that hang
        libc.umount2(os.fsencode(folder), _MNT_DETACH)
