"""Asked to stop while modules are imported, from the first line of our code on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import producer
from tests.conftest import ROOT

PATIENCE_SECONDS = 60
ENDLESS_IMPORT = """
import time
print("importing", flush=True)
while True:
    try:
        time.sleep(0.1)  # a signal that comes just before it begins is handled when it ends
    except BaseException:  # as some libraries do
        pass
"""
CASES = [
    ("consumer", signal.SIGTERM, 143, b""),
    ("consumer", signal.SIGINT, 130, b""),
    ("producer", signal.SIGINT, 130, b"producer: interrupted\n"),
]


@pytest.mark.parametrize(("program", "number", "code", "words"), CASES)
def test_while_modules_are_imported(
    program: str, number: int, code: int, words: bytes, tmp_path: Path
) -> None:
    """It ends at once, as the signal says: no import can swallow it, or show a traceback."""
    (tmp_path / "typer.py").write_text(ENDLESS_IMPORT)
    process = subprocess.Popen(
        [sys.executable, "-m", program, "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_ignore_interrupts,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"
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
