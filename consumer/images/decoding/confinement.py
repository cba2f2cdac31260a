"""Gives up, for good, every right that decoding does not need, before a hostile byte is read.

Code that a hostile image took over can then compute, in bounded memory and time, and answer. It can
open no file and no socket, start no process, and touch no other process.
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

from consumer.images.decoding import seccomp

_DESCRIPTORS: Final = 4  # the channel, /dev/null twice, an image
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
# Numbers and bits of linux/landlock.h; the system calls have one number on every architecture.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION: Final = 1
# The rights that each version of the ABI knows, as (version, number of bits): of files (REFER came
# with 2, TRUNCATE with 3, IOCTL_DEV with 5), of TCP (bind and connect), and of what belongs to
# others outside (abstract sockets and signals).
_FILE_BITS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
_TCP_BITS: Final = ((4, 2),)
_SCOPE_BITS: Final = ((6, 2),)


def confine(memory_bytes: int, *, threads: bool = False) -> tuple[str, ...]:
    """Give up rights, then set limits that cannot be raised again.

    With `threads` it may still start threads, and no process. Returns what this machine lacks for
    a whole cage.

    Raises:
        OSError: the system does not let us.
    """
    # A Ctrl-C, or a stop of the whole service, must not kill images that are being finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lacks: list[str] = []
    if sys.platform == "linux":
        if not _give_up_rights():
            lacks.append("Landlock")
        # macOS has the limit and does not enforce it.
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if not threads:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # Open descriptors stay open; one more is allowed, for the image that the consumer sends.
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    # The last step: the filter forbids all of the steps above, too.
    if sys.platform != "linux" or not seccomp.install(threads=threads):
        lacks.append("seccomp")
    return tuple(lacks)


def yield_to_others(niceness: int) -> None:
    """Lower this process's priority; 0 changes nothing."""
    if not niceness:
        return
    os.nice(niceness)
    # On Linux a session of its own is scheduled as a group, whose priority is not its processes'.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")


def limit_cpu(pid: int, seconds: int, in_force: int = 0) -> int:
    """Let the kernel end process `pid` (SIGXCPU) after that many seconds of CPU more, or one above.

    Return the limit, in seconds since the process started, for the next call's `in_force`: most
    pictures change nothing. The process cannot raise the limit, nor catch the signal, where it has
    a seccomp filter.

    Raises:
        OSError: there is no such process.
    """
    if sys.platform != "linux":  # no limit of another process: its clock alone ends it
        return 0
    limit = int(time.clock_gettime(cpu_clock(pid))) + seconds + 1
    if limit == in_force:
        return limit
    _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.prlimit(pid, resource.RLIMIT_CPU, (soft, hard))
    return limit


def cpu_clock(pid: int) -> int:
    """Return the number of the clock that counts the CPU time of process `pid` (Linux)."""
    return ~pid << 3 | 2  # CPUCLOCK_SCHED of a whole process: linux/posix-timers.h


def forbid_inspection() -> None:
    """Close memory and environment of this process to others of the same user (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent() -> None:
    """End this process when the thread that started it does (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def landlock_rights(version: int) -> list[int]:
    """Return the masks of struct landlock_ruleset_attr: all rights that a version knows."""
    counts = (
        max((count for since, count in bits if version >= since), default=0)
        for bits in (_FILE_BITS, _TCP_BITS, _SCOPE_BITS)
    )
    return [(1 << count) - 1 for count in counts if count]


def _give_up_rights() -> bool:
    """Return whether Landlock is there; any other failure raises."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Out of memory, the kernel kills a decoder before the consumer; /proc may be hidden.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for option, value in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option} failed")
    return _landlock(libc)


def _landlock(libc: ctypes.CDLL) -> bool:
    """Refuse files, TCP, signals to others and the memory of others, as far as the kernel can."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:  # before 5.13, or not switched on
        return False
    rights = landlock_rights(version)
    attributes = struct.pack(f"={len(rights)}Q", *rights)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0 or libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock is there and refuses")
    os.close(ruleset)
    return True
