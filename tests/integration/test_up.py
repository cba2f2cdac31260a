"""`make up`: says where everything is, does what lands in the folder once, leaves nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagelane.exits import ExitCode
from tests.conftest import ROOT, EmbeddedBroker
from tests.consumer_process import PICTURES

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 120


class Up:
    """A running `make up`, and what it said."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process, self._output = process, output

    @property
    def said(self) -> str:
        return self._output.read_text()

    @property
    def page(self) -> str:
        found = re.search(r"page +(\S+)", self.said)
        return found[1] if found else ""

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.page + "api/state") as answer:
            state: dict[str, Any] = json.load(answer)
            return state

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said
            if holds():
                return
            time.sleep(0.1)
        raise AssertionError(f"not in time: {what}\n{self.said}")


@contextmanager
def up(folder: Path, pictures: Path, number: int) -> Iterator[Up]:
    output = folder / f"said-{number}"
    own = {"UP_DIR": str(folder / "up"), "UP_PORT": "0", "GALLERY_PORT": "0"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.up"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PICTURES": str(pictures)} | own,
            stdout=file,
            stderr=file,
        )
    try:
        yield Up(process, output)
    finally:
        process.send_signal(signal.SIGINT)  # a kill would leave its broker
        process.wait(PATIENCE_SECONDS)


def programs_in(folder: Path) -> dict[int, str]:
    """Return the command lines of processes that work in the folder, or name it, by number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in command or where.startswith(str(folder)):
            found[int(process.name)] = command
    return found


def statuses_in(folder: Path) -> list[str]:
    """Return the status of each line of the file of results."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [json.loads(line)["status"] for line in lines]


def pasted(said: str, command: str) -> str:
    """Run a command behind the line that `make up` gives to paste, and return what it prints."""
    [export] = [line for line in said.splitlines() if line.startswith("  export ")]
    done = subprocess.run(
        ["/bin/sh", "-c", f"{export}\n{sys.executable} -m imagelane {command}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_an_empty_folder_to_a_restart(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    """What lands is done; Ctrl-C leaves nothing running; done pictures are not done again."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with up(tmp_path, pictures, 1) as first:
        first.wait_until(lambda: first.page, "the page's address")
        first.wait_until(lambda: "No pictures yet" in str(first.state()["notice"]), "its notice")
        shutil.copy(PICTURES / "large-red-circle.jpg", pictures / "a.jpg")
        first.wait_until(lambda: first.state()["counts"]["ok"] == 1, "the first picture")
        shutil.copy(PICTURES / "two-green-stars.jpg", pictures / "a.jpg")  # changed: a new one
        (pictures / "b.jpg").write_bytes(b"no picture")
        first.wait_until(
            lambda: first.state()["counts"] == {"ok": 2, "error": 1}, "the changed and the broken"
        )
        assert "ok      a.jpg: a large red circle on a white background" in first.said
        assert "failed  b.jpg: not_an_image" in first.said
        assert "a large red circle" in pasted(first.said, "results")
        assert "group imagelane: stable, 1 member" in pasted(first.said, "status")
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(PATIENCE_SECONDS) == 0
        assert "everything is down" in first.said
    assert programs_in(tmp_path / "up") == {}
    with up(tmp_path, pictures, 2) as second:
        second.wait_until(lambda: "ready:" in second.said, "the consumer")
        second.wait_until(lambda: second.state()["open"] == 0, "the backlog")
        shutil.copy(PICTURES / "large-red-circle.jpg", pictures / "c.jpg")
        second.wait_until(lambda: second.state()["counts"]["ok"] == 3, "the new picture")
        assert second.said.count("ok      ") == 1
        second.wait_until(lambda: len(statuses_in(tmp_path / "up")) == 4, "the file's lines")
        assert sorted(statuses_in(tmp_path / "up")) == ["error", "ok", "ok", "ok"]


@pytest.mark.parametrize(
    ("victim", "code", "words"),
    [
        ("-m consumer ", ExitCode.FAILED, "up: the consumer ended by itself, exit code -9"),
        ("broker --data ", ExitCode.BROKER, "up: the broker ended by itself, exit code -9"),
    ],
)
def test_a_part_that_dies_ends_it_with_a_reason(
    embedded_broker: EmbeddedBroker, tmp_path: Path, victim: str, code: ExitCode, words: str
) -> None:
    """And with an exit code, and nothing left running."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with up(tmp_path, pictures, 1) as it:
        it.wait_until(lambda: "ready: " in it.said, "the consumer")
        [pid] = [pid for pid, command in programs_in(tmp_path / "up").items() if victim in command]
        os.kill(pid, signal.SIGKILL)
        assert it.process.wait(PATIENCE_SECONDS) == code
    assert it.said.splitlines()[-1].startswith(words)
    assert "Traceback" not in it.said
    assert programs_in(tmp_path / "up") == {}
