"""The decoder's processes: which it has, and what /proc says of them."""

import os
from pathlib import Path

from consumer.images.decoding.pool import Decoder

_DECODER, _FETCHER = b"consumer.images.decoding.worker", b"consumer.images.fetching.worker"


def workers_of(decoder: Decoder) -> set[int]:
    """Return the ids of the processes that `decoder` sends pictures to.

    Unlike `child_workers` without those that it has just killed, and with those just started.
    """
    lanes = decoder.lanes.values()
    return {each._process.pid for lane in lanes for each in lane._workers if each.is_started}


def replaced(decoder: Decoder) -> int:
    """Return how many of the processes of `decoder` another one took the place of."""
    return sum(lane.replaced for lane in decoder.lanes.values())


def child_workers(parent: int | None = None) -> set[int]:
    """Return the ids of the decoding processes that `parent`, or this process, has."""
    return _children(parent or os.getpid(), _DECODER)


def child_fetchers(parent: int | None = None) -> set[int]:
    """Return the ids of the fetching processes that `parent`, or this process, has."""
    return _children(parent or os.getpid(), _FETCHER)


def state_of(pid: int) -> str:
    """Return the state of a process, as `ps` shows it."""
    return _fields(pid)[0]


def is_gone(pid: int) -> bool:
    """Say whether a process is no more, or waits for a parent that is not us to hear of it."""
    return not Path(f"/proc/{pid}").exists() or state_of(pid) in "ZX"


def is_ready(pid: int) -> bool:
    """Say whether a decoding process has given up its rights, the last step of its start."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return any(line.split()[:4] == ["Max", "open", "files", "4"] for line in limits.splitlines())


def peak_bytes(pid: int | str = "self") -> int:
    """Return the most memory that a process had resident so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def user_ticks(pid: int) -> int:
    """Return how long a process has computed, in hundredths of a second."""
    return int(_fields(pid)[11])


def niceness(pid: int) -> int:
    """Return the niceness of a process: the higher, the more it leaves to others."""
    return int(_fields(pid)[16])


def environment_of(pid: int) -> set[str]:
    """Return the names in the environment that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {entry.partition("=")[0] for entry in entries if entry}


def command_of(pid: int) -> str:
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def open_files(pid: int) -> list[str]:
    """Return what the descriptors of a process are, by their number."""
    entries = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda entry: int(entry.name))
    # Of ourselves the one that reads the folder is gone by now.
    return [str(entry.readlink()) for entry in entries if entry.is_symlink()]


def _children(parent: int, module: bytes) -> set[int]:
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent(int(entry.name)) == parent and _runs(entry, module)
    }


def _runs(entry: Path, module: bytes) -> bool:
    try:
        return module in (entry / "cmdline").read_bytes()
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        return int(_fields(pid)[1])
    except OSError:
        return 0


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
