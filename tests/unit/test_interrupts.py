"""Asked to stop while modules are imported, from the first line of our code on."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import producer
from tests.conftest import ROOT

PATIENCE_SECONDS = 60
CASES = [
    ("consumer", signal.SIGTERM, 143, b""),
    ("consumer", signal.SIGINT, 130, b""),
    ("producer", signal.SIGINT, 130, b"producer: interrupted\n"),
]


@pytest.mark.parametrize(("program", "number", "code", "words"), CASES)
def test_while_modules_are_imported(program: str, number: int, code: int, words: bytes) -> None:
    """It ends at once, as the signal says: no import can swallow it, or show a traceback."""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", program, "--help"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_ignore_interrupts,
        )
        _wait_until_it_takes(number, process)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, said) == (code, words)


def test_what_is_imported_when_asked_for_is_all_there_is() -> None:
    """Each name of `producer` is where its table says, and no other name is."""
    for name in producer.__all__:
        assert getattr(producer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = producer.nothing


def _ignore_interrupts() -> None:
    # Python itself leaves it so, and what takes the signal then is our code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _wait_until_it_takes(number: int, process: "subprocess.Popen[bytes]") -> None:
    bit = 1 << (number - 1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.partition("SigCgt:")[2].split()[0], 16) & bit:
            return
        time.sleep(0.001)
    raise AssertionError("the process takes no signals")
