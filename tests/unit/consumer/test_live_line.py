"""The consumer on a terminal: records are counted in one line, and other events stand above it."""

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyte
import pytest
import structlog

from consumer.runtime.live_line import LiveLine

ROOT = Path(__file__).parents[3]
SCRIPT = """
import structlog
from consumer.runtime.logging_setup import configure
from imagelane.terminal import end_live_line
configure("auto", "%s")
log = structlog.get_logger()
log.info("ready", seconds=1)
for number in range(100):
    log.info("record done", outcome="ok", id=str(number))
log.warning("blip load failed", reason="x")
end_live_line()
log.info("stopped")
"""


def screen_of(level: str) -> list[str]:
    """Run the script on a terminal, and return the lines that it leaves."""
    master, slave = pty.openpty()
    screen = pyte.Screen(120, 150)
    stream = pyte.ByteStream(screen)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT % level],
        stderr=slave,
        stdout=slave,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TERM": "xterm"},
    ):
        os.close(slave)
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            stream.feed(data.replace(b"\n", b"\r\n") if b"\r\n" not in data else data)
    os.close(master)
    return [line.rstrip() for line in screen.display if line.strip()]


def test_records_are_counted_and_not_listed() -> None:
    """What else is logged has lines, and the live line leaves nothing behind."""
    shown = screen_of("info")

    assert len(shown) == 3
    assert ["ready" in shown[0], "blip load failed" in shown[1], "stopped" in shown[2]] == [
        True
    ] * 3


def test_each_record_has_a_line_when_asked_for() -> None:
    """With `-v`, which is LOG_LEVEL=debug."""
    assert len(screen_of("debug")) == 103


def test_the_line_says_how_many_how_fast_and_which_models() -> None:
    """The rate is of the last seconds."""
    now = 0.0
    live = LiveLine(clock=lambda: now)

    def log(event: str, **members: str) -> None:
        live.process(None, "info", {"event": event, **members})

    for outcome in ("ok", "ok", "error", "refused"):
        with pytest.raises(structlog.DropEvent):
            log("record done", outcome=outcome)
    log("blip on device")
    log("blip offloaded")
    log("ready")
    now = 8.0

    assert live.text() == "2 done  0.5/s  failed 1  refused 1  BLIP offloaded"

    live.waiting = 40
    assert live.text() == (
        "2 done  0.5/s  failed 1  refused 1  40 waiting  ETA 1:20  BLIP offloaded"
    )


async def test_what_waits_is_asked_for_until_cancelled() -> None:
    """By whoever knows the partitions; before the first record there is no rate, and no ETA."""
    live, asked = LiveLine(clock=lambda: 0.0), asyncio.Event()

    async def waiting() -> int:
        asked.set()
        return 7

    following = asyncio.create_task(live.follow(waiting))
    await asked.wait()
    await asyncio.sleep(0)
    assert live.text() == "0 done  0.0/s  failed 0  7 waiting"
    following.cancel()
