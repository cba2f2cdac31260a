"""The process's limits and tuning: memory, spinning threads, descriptors."""

import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# As many objects as the records in flight have. Python's 700 would start a collection every few
# records, which takes half of a record's time here and finds all objects alive.
_COLLECT_OBJECTS: Final = 50_000
_SPIN_COUNT: Final = "30000"
_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
_LARGE_BYTES: Final = 256 * 1024


def collect_seldom() -> None:
    """Let the garbage collector run after `_COLLECT_OBJECTS` new objects."""
    gc.set_threshold(_COLLECT_OBJECTS)


def return_large_blocks() -> None:
    """Let malloc return each large block to the system when it is freed. Not where torch computes.

    By default glibc keeps freed blocks of up to 32 MiB: the peak with large images was 1.35 to 2.3
    times the byte budget, and is 1.03 times now (`benchmarks/corpus.py`). A model's step on a CPU
    frees hundreds of such blocks, and would fault each of their pages in again: a third of the
    consumer's CPU with the tiny model.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def spin_briefly() -> None:
    """Shorten the spinning of OpenMP's idle threads; call this before torch is imported.

    GNU OpenMP lets them spin for milliseconds, on the cores that decode meanwhile: the tiny model
    gets a fifth fewer images a second. Without any spinning a single image waits twice as long for
    a large model, whose threads wait for each other many times in one step.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


@contextmanager
def permanent_objects() -> Iterator[None]:
    """Exempt all objects that exist at the end of the block from garbage collection.

    torch and transformers make half a million permanent objects: collections take a fifth of their
    import time, and each later full collection stopped every thread for 0.25 to 1 s.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors to the hard one.

    The usual 1,024 are for select(2), which nothing here uses; each record in flight may have a
    connection.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses its own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
