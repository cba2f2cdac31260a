"""What this process takes of its machine: memory, and how it gives it back; descriptors."""

import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# As many as the records in flight hold. Python's 700 begin a collection every few records, which
# finds them all alive: half of the time that a record takes here, beside torch's many objects.
_COLLECT_OBJECTS: Final = 50_000
_SPIN_COUNT: Final = "30000"
_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
_LARGE_BYTES: Final = 256 * 1024


def collect_seldom() -> None:
    """Let the garbage collector run after `_COLLECT_OBJECTS` new objects."""
    gc.set_threshold(_COLLECT_OBJECTS)


def return_large_blocks() -> None:
    """Let malloc return each large block to the system when it is freed. Not where torch computes.

    By itself glibc learns to keep blocks of up to 32 MiB, the holes between them included: the
    peak with large images was 1.35 to 2.3 times the byte budget, and is 1.03 times now
    (`benchmarks/corpus.py`). A model's step has hundreds of such blocks, whose pages the system
    would make anew for each: a fifth of the tiny model's time on a CPU.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def spin_briefly() -> None:
    """Let threads that wait for a model's next step sleep soon; call it before torch is imported.

    GNU OpenMP has them spin for milliseconds, on the cores that decode meanwhile: the tiny model
    gets a fifth fewer images a second. Not spinning at all doubles what a lone picture waits for a
    large model, whose threads wait for each other many times in one step.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


@contextmanager
def kept() -> Iterator[None]:
    """Hide from the garbage collector whatever exists at the end of this.

    torch and transformers make half a million objects that stay: collections meanwhile are a fifth
    of their import, and each later one of all generations took 0.25 to 1 s, with every thread
    waiting.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def allow_descriptors() -> None:
    """Allow this process as many descriptors as it may have.

    The usual 1,024 are of select(2), which nothing here uses; each record in flight may have a
    connection.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses what it says is allowed
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
