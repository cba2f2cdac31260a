"""Take from this process, for good, what decoding does not need; before it sees a hostile byte.

What is left to code that a hostile image took over: to compute, in bounded memory and time, and to
answer. It can open no file and no socket, start nothing, and not touch another process.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
# Numbers and bits of linux/landlock.h; the system calls have one number on every architecture.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION: Final = 1
_ALL_OF_FILES: Final = (1 << 13) - 1
_BIND_AND_CONNECT_TCP: Final = 3  # since version 4
_OTHERS_SOCKETS_AND_SIGNALS: Final = 3  # since version 6


def confine(memory_bytes: int, *, threads: bool = False) -> None:
    """Give up rights, then set limits that cannot be raised again without a privilege.

    With `threads` it may still start threads, and so processes; root may in any case.

    Raises:
        OSError: the system does not let us.
    """
    # A Ctrl-C, or a stop of the whole service, must not take the images that are being finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        _give_up_rights()
        # macOS knows the limit and does not hold anybody to it.
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if not threads:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # What is open stays so; nothing more can be opened, neither a file nor a socket.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def limit_cpu(seconds: int) -> None:
    """End this process (SIGXCPU) once it has used that many more seconds of CPU, or one above."""
    used = int(time.process_time())
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds + 1, hard))


def _give_up_rights() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option} failed")
    # Where memory ends, a decoder goes before the consumer does; /proc may be hidden.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _landlock(libc)


def _landlock(libc: ctypes.CDLL) -> None:
    """Refuse files, TCP, signals to others and the memory of others, as far as the kernel can."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:  # before 5.13, or not switched on
        return
    fields = [_ALL_OF_FILES]
    if version >= 4:
        fields.append(_BIND_AND_CONNECT_TCP)
    if version >= 6:
        fields.append(_OTHERS_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0 or libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock is there and refuses")
    os.close(ruleset)
