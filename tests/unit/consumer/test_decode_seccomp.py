"""The seccomp filter, instruction by instruction: for both architectures, on whichever we are."""

import errno
import re
import struct
from pathlib import Path

import pytest

from consumer.images.decoding.seccomp import AARCH64, X86_64, Architecture, program

ALLOW = 0x7FFF0000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
BOTH = pytest.mark.parametrize("architecture", [X86_64, AARCH64], ids=["x86-64", "arm64"])
I386, PROT_EXEC, CLONE_THREAD, X32 = 0x40000003, 4, 0x10000, 0x40000000
# Where the kernel's headers are, as Debian installs them: arm64 has the generic numbers.
HEADERS = (
    (X86_64, Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")),
    (AARCH64, Path("/usr/include/asm-generic/unistd.h")),
)


def decide(filters: bytes, number: int, *arguments: int, audit: int) -> int:
    """Run the program as the kernel does and return the action; it must end by itself."""
    seccomp_data = struct.pack("<IIQ6Q", number, audit, 0, *(*arguments, *[0] * 6)[:6])
    at = word = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", filters, 8 * at)
        at += 1
        match code:
            case 0x20:
                (word,) = struct.unpack_from("<I", seccomp_data, value)
            case 0x15:
                at += if_true if word == value else if_false
            case 0x35:
                at += if_true if word >= value else if_false
            case 0x45:
                at += if_true if word & value else if_false
            case 0x06:
                return value
            case _:
                raise AssertionError(code)


@BOTH
@pytest.mark.parametrize("threads", [False, True])
def test_what_is_not_listed_is_refused(architecture: Architecture, threads: bool) -> None:
    """Of all numbers that there are, and of those that there may be one day."""
    filters = program(architecture, threads=threads)
    allowed = {
        number
        for number in range(1024)
        if decide(filters, number, audit=architecture.audit) == ALLOW
    }
    assert allowed == set(architecture.allowed.values())
    for number in range(1024):
        assert decide(filters, number, audit=I386) == EPERM
        if architecture is X86_64:
            assert decide(filters, number | X32, audit=architecture.audit) == EPERM


@BOTH
def test_memory_never_becomes_code(architecture: Architecture) -> None:
    """With no other bit of its protection either."""
    filters = program(architecture, threads=True)
    for name in ("mmap", "mprotect"):
        number = architecture.allowed[name]
        for protection in range(8):
            action = decide(filters, number, 0, 4096, protection, audit=architecture.audit)
            assert action == (EPERM if protection & PROT_EXEC else ALLOW)


@BOTH
def test_clone_makes_threads_alone(architecture: Architecture) -> None:
    """And those only where a library needs one; glibc asks by `clone3` first."""
    audit, clone = architecture.audit, architecture.clone
    thread = 0x3D0F00  # what pthread_create passes
    assert thread & CLONE_THREAD
    for threads in (False, True):
        filters = program(architecture, threads=threads)
        assert decide(filters, clone, thread, audit=audit) == (ALLOW if threads else EPERM)
        assert decide(filters, clone, 17, audit=audit) == EPERM  # fork
        assert decide(filters, architecture.clone3, audit=audit) == ENOSYS


@pytest.mark.parametrize(("architecture", "header"), HEADERS, ids=["x86-64", "arm64"])
def test_numbers_are_those_of_the_kernels_headers(architecture: Architecture, header: Path) -> None:
    """Where they are installed."""
    if not header.exists():
        pytest.skip(f"no {header}")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(), re.MULTILINE)
    numbers = {name: int(number) for name, number in reversed(found)}
    ours = dict(architecture.allowed)
    for name in ("clone", "clone3", "seccomp"):
        ours[name] = getattr(architecture, name)
    assert ours == {name: numbers[name] for name in ours}
