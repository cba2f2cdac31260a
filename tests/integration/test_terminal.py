"""What a terminal shows, on a terminal of 100 columns."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyte
import pytest
from aiokafka.admin import NewTopic

from producer import ProducerSettings
from schemas import Request, Result, Source
from tests.answering import answering_consumer, with_caption
from tests.conftest import EmbeddedBroker, Topics, create_topics

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
COLUMNS, LINES = 100, 40
COUNT = 12


@pytest.fixture
async def here(embedded_broker: EmbeddedBroker, secret: str) -> dict[str, str]:
    """The environment of a command, with topics of its own."""
    tag = uuid4().hex[:12]
    topics = Topics(ingest=f"ingest.{tag}", results=f"results.{tag}", dlq=f"dlq.{tag}")
    names = (topics.ingest, topics.results, topics.dlq)
    await create_topics(embedded_broker.bootstrap, *(NewTopic(name, 1, 1) for name in names))
    return {
        "BOOTSTRAP_SERVERS": embedded_broker.bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(COUNT):
        (tmp_path / f"picture-{number:02}.png").touch()
    return tmp_path


class Terminal:
    """A program on a terminal, and every state of the screen that it made."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self._master = process, master
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.states: list[list[str]] = []

    def read(self) -> bool:
        """Take in what was written; tell whether more may come."""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            return False
        for part in re.split(rb"(?=\r\x1b\[2K)", data):
            self._stream.feed(part)
            self.states.append(self.lines)
        return bool(data)

    @property
    def lines(self) -> list[str]:
        """The lines that are not blank."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def read_all(self) -> int:
        """Read to the end, and return the exit code."""
        while self.read():
            pass
        return self.process.wait(30)


@contextmanager
def terminal(*arguments: str, environment: dict[str, str]) -> Iterator[Terminal]:
    """Run `imagelane` with stdout and stderr on one terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "imagelane", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm"} | environment,
    ) as process:
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            os.close(master)


async def test_lines_stand_above_a_bar_that_leaves_nothing_behind(
    here: dict[str, str], pictures: Path
) -> None:
    """Each line begins at the margin and ends before it; at the end there is the tally alone."""
    with terminal("publish", str(pictures), "--wait", environment=here) as shown:
        async with answering_consumer(ProducerSettings.from_env(here)):
            code = await asyncio.to_thread(shown.read_all)

    *results, tally = shown.lines
    assert code == 0
    assert sorted(line.split()[0] for line in results) == [
        f"picture-{number:02}.png" for number in range(COUNT)
    ]
    assert all(line.split()[1] == "ok" for line in results)
    assert all("a large red circle" in line for line in results)
    assert tally.startswith(f"published {COUNT}, done {COUNT}, failed 0, ")
    bars = [line for state in shown.states for line in state if line.startswith("[")]
    assert bars, "no bar was shown"
    assert all(f"/{COUNT}" in line and "failed 0" in line for line in bars)
    # A bar is the last line of the screen, always.
    for state in shown.states:
        assert not any(line.startswith("[") for line in state[:-1]), state


async def test_the_bar_moves_while_nothing_comes(here: dict[str, str], pictures: Path) -> None:
    """Its clock does; and Ctrl-C leaves a tally."""
    with terminal("publish", str(pictures), "--wait", environment=here) as shown:

        def until_it_moved() -> None:
            bars: set[str] = set()
            while len(bars) < 3:
                assert shown.read(), shown.lines
                bars |= {line for line in shown.lines if f"0/{COUNT}" in line}
            shown.process.send_signal(signal.SIGINT)

        await asyncio.wait_for(asyncio.to_thread(until_it_moved), 60)
        code = await asyncio.to_thread(shown.read_all)

    assert code == 130
    assert [line[: len(f"published {COUNT}, done 0")] for line in shown.lines] == [
        f"published {COUNT}, done 0",
        "imagelane: interrupted"[: len(f"published {COUNT}, done 0")],
    ]


async def test_a_hostile_caption_cannot_steer_the_terminal(
    here: dict[str, str], pictures: Path
) -> None:
    """Nor a name of a file."""
    (pictures / "\x1b[2J\x1b[Hpwned.png").touch()

    def hostile(request: Request, source: Source) -> Result:
        result = with_caption(request, source)
        assert result.caption is not None
        caption = result.caption.model_copy(
            update={"text": "\x1b[2J\x1b[31mred\u202eder\r\nforged"}
        )
        return result.model_copy(update={"caption": caption})

    with terminal("publish", str(pictures), "--wait", environment=here) as shown:
        async with answering_consumer(ProducerSettings.from_env(here), hostile):
            code = await asyncio.to_thread(shown.read_all)

    assert code == 0
    assert len(shown.lines) == COUNT + 2
    assert all(line.isprintable() for line in shown.lines)
    assert not any(line.startswith(("forged", "pwned")) for line in shown.lines)
