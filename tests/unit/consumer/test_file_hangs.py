"""A file system that hangs: its references fail in time, and nothing else waits for it."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from consumer.errors import Unavailable
from consumer.images.sources.daemon_threads import DaemonThreads
from consumer.images.sources.file import FileSource
from tests.conftest import ROOT
from tests.fakes import fetched
from tests.hung_mount import hung_mount

# More than asyncio's default executor has threads.
MANY = 100
PROCESS = """
import asyncio, sys
from consumer.images.byte_budget import ByteBudget
from consumer.images.sources.file import FileSource

async def fetch(source):
    async with ByteBudget(1000).reserve() as reservation:
        await source.fetch(f"file://{sys.argv[1]}/a.jpg", 100, reservation)

async def main():
    source = FileSource.under([sys.argv[1]], total_seconds=3600)
    print("resolved", flush=True)
    await asyncio.to_thread(input)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(fetch(source))
        await asyncio.sleep(0.1)
        print("digest", await asyncio.to_thread(sum, [1, 2]), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """A root that can hang, and a sound one with a picture.

    Not in pytest's own folder: another session that tidies it up there would meet the mount.
    """
    with TemporaryDirectory(prefix="imagelane-hang-") as parent:
        for name in ("hung", "sound"):
            (Path(parent) / name).mkdir()
            (Path(parent) / name / "a.jpg").write_bytes(b"cat")
        yield Path(parent) / "hung", Path(parent) / "sound"


async def test_hung_root_fails_in_time_and_holds_up_no_other(folders: tuple[Path, Path]) -> None:
    """Far more references than there are threads, beside digests and another root."""
    hung, sound = folders
    source = FileSource.under([str(hung), str(sound)], total_seconds=0.2)
    with hung_mount(hung):
        waiting = [
            asyncio.create_task(fetched(source, f"file://{hung}/a.jpg", 100)) for _ in range(MANY)
        ]
        await asyncio.sleep(0)
        assert await fetched(source, f"file://{sound}/a.jpg", 100) == b"cat"
        assert await asyncio.to_thread(sum, [1, 2]) == 3
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, Unavailable)
            assert "the file system does not answer in time" in error.message
    deadline = 500
    while deadline:  # it is there again
        deadline -= 1
        try:
            assert await fetched(source, f"file://{hung}/a.jpg", 100) == b"cat"
            break
        except Unavailable:
            await asyncio.sleep(0.01)
    assert deadline


def test_process_with_hung_reads_ends_when_asked_to(folders: tuple[Path, Path]) -> None:
    """SIGINT cancels; nothing joins the threads that hang."""
    hung, _ = folders
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, hung],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A job in the background of a shell begins with it ignored, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "resolved\n"
            with hung_mount(hung):
                process.stdin.write("go\n")
                process.stdin.flush()
                assert process.stdout.readline() == "digest 3\n"
                process.send_signal(signal.SIGINT)
                process.wait(60)  # asyncio waits 300 s for its own executor
        finally:
            process.kill()


async def test_calls_past_the_hung_ones_are_refused_until_one_returns() -> None:
    """Threads are bounded, whatever hangs."""
    threads = DaemonThreads(at_once=2, max_hung=3)
    events = [threading.Event() for _ in range(3)]
    for event in events:
        with pytest.raises(TimeoutError):
            await threads.run(event.wait, 0.01)
    with pytest.raises(TimeoutError):
        await threads.run(lambda: 1, 60)
    events[0].set()
    while True:
        try:
            assert await threads.run(lambda: 1, 60) == 1
            break
        except TimeoutError:
            await asyncio.sleep(0.01)
    for event in events:
        event.set()
