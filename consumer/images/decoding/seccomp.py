"""A seccomp filter as a BPF program: the system calls of a process that computes and answers.

Any call that is not listed fails with EPERM: a library that tries something new gets an error, and
the process lives. The program is some hundred instructions
and the same for every libc: it names calls of the kernel. libseccomp would be one more library in
every image; its one binding for Python was last released in 2021.

No signal can be caught, blocked or sent: there is no handler to return from, and so the signal of
the limit of CPU, SIGXCPU, ends the process whatever it runs.
"""

import ctypes
import errno
import platform
import struct
import sys
from dataclasses import dataclass
from typing import Final

# Of linux/seccomp.h, linux/audit.h and linux/filter.h.
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1  # for all threads
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_LOAD: Final = 0x20  # a word of struct seccomp_data, at an offset
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER_EQUAL: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16  # eight bytes each, the low word first on both architectures
_X32: Final = 0x40000000  # a second ABI of x86-64, with numbers from here on

_PROT_EXEC: Final = 4
_CLONE_THREAD: Final = 0x10000

# The number of each allowed system call, on x86-64 and on arm64.
_NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    # The channel, and the image that comes through it; 1 and 2 are /dev/null.
    "recvmsg": (47, 212),
    "pread64": (17, 67),
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "close": (3, 57),
    "poll": (7, None),  # the C library's `poll` calls ppoll where there is no such number
    "ppoll": (None, 73),
    # Memory; mmap and mprotect without PROT_EXEC.
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # Threads of libraries, and their locks.
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "gettid": (186, 178),
    "getpid": (39, 172),
    # Time, chance, and the end.
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "restart_syscall": (219, 128),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The kernel's number of an architecture, and of each system call that the filter names."""

    audit: int
    seccomp: int
    clone: int
    clone3: int
    allowed: dict[str, int]


X86_64: Final = Architecture(
    audit=0xC000003E,
    seccomp=317,
    clone=56,
    clone3=435,
    allowed={name: number for name, (number, _) in _NUMBERS.items() if number is not None},
)
AARCH64: Final = Architecture(
    audit=0xC00000B7,
    seccomp=277,
    clone=220,
    clone3=435,
    allowed={name: number for name, (_, number) in _NUMBERS.items() if number is not None},
)
_MACHINES: Final = {"x86_64": X86_64, "aarch64": AARCH64}


def install(*, threads: bool) -> bool:
    """Filter the system calls of this process, for good; False where the machine cannot.

    It must have `PR_SET_NO_NEW_PRIVS`. With `threads` it may still start threads.

    Raises:
        OSError: the kernel has seccomp and refuses this filter.
    """
    architecture = _MACHINES.get(platform.machine())
    if architecture is None or sys.maxsize < 2**32:  # no table, or a 32-bit interpreter
        return False
    filters = program(architecture, threads=threads)
    buffer = ctypes.create_string_buffer(filters, len(filters))
    # struct sock_fprog: the number of instructions, and where they are.
    fprog = struct.pack("@HP", len(filters) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(architecture.seccomp, _SET_MODE_FILTER, _FLAG_TSYNC, fprog) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):  # a kernel, or a sandbox, without it
        return False
    raise OSError(code, "seccomp is there and refuses")


def program(architecture: Architecture, *, threads: bool) -> bytes:
    """Return the filter as an array of struct sock_filter."""
    instructions = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, architecture.audit, if_true=1),
        _refuse(errno.EPERM),
        _instruction(_LOAD, _NUMBER),
    ]
    if architecture is X86_64:
        instructions += [
            _instruction(_JUMP_GREATER_EQUAL, _X32, if_false=1),
            _refuse(errno.EPERM),
        ]
    for name, number in architecture.allowed.items():
        if name in ("mmap", "mprotect"):
            instructions += _when_bits(number, 2, _PROT_EXEC, _refuse(errno.EPERM), _ALLOW)
        else:
            instructions += _when(number, _ALLOW)
    if threads:
        instructions += _when_bits(
            architecture.clone, 0, _CLONE_THREAD, _ALLOW, _refuse(errno.EPERM)
        )
    # Its flags lie in memory, which no filter sees; glibc takes `clone` where it is not there.
    instructions += _when(architecture.clone3, _refuse(errno.ENOSYS))
    instructions.append(_refuse(errno.EPERM))
    return b"".join(instructions)


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(code: int) -> bytes:
    return _instruction(_RETURN, _RET_ERRNO | code)


_ALLOW: Final = _instruction(_RETURN, _RET_ALLOW)


def _when(number: int, action: bytes) -> list[bytes]:
    return [_instruction(_JUMP_EQUAL, number, if_false=1), action]


def _when_bits(number: int, argument: int, bits: int, any_set: bytes, none: bytes) -> list[bytes]:
    return [
        _instruction(_JUMP_EQUAL, number, if_false=4),
        _instruction(_LOAD, _ARGUMENTS + 8 * argument),
        _instruction(_JUMP_ANY_BIT, bits, if_false=1),
        any_set,
        none,
    ]
