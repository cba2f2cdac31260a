"""Asked to stop: while modules are imported, and while a command runs."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import producer
from imagelane.exits import ExitCode
from imagelane.interrupts import SIGNALS, raise_interrupts
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
    ("consumer --help", "typer", signal.SIGTERM, 143, b""),
    ("consumer --help", "typer", signal.SIGINT, 130, b""),
    ("producer --help", "typer", signal.SIGINT, 130, b"producer: interrupted\n"),
    ("imagelane --help", "typer", signal.SIGINT, 130, b"imagelane: interrupted\n"),
    ("imagelane status", "orjson", signal.SIGINT, 130, b"imagelane: interrupted\n"),
    ("imagelane check", "structlog", signal.SIGTERM, 130, b"imagelane: interrupted\n"),
]
SECRET = "a-secret-that-only-this-test-knows-0123456789"


@pytest.mark.parametrize(("command", "module", "number", "code", "words"), CASES)
def test_while_modules_are_imported(
    command: str, module: str, number: int, code: int, words: bytes, tmp_path: Path
) -> None:
    """It ends at once, as the signal says: no import can swallow it, or show a traceback."""
    (tmp_path / f"{module}.py").write_text(ENDLESS_IMPORT)
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["verify --topic t", "check"])
def test_a_stop_ends_a_command_with_one_line(command: str, number: int) -> None:
    """SIGTERM, as of a container whose first process this is, and Ctrl-C."""
    own = {"SECRET_API_KEY": SECRET, "BROKER_WAIT_SECONDS": "60"}
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "imagelane", *command.split(), "--brokers", "127.0.0.1:1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **own},
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write("no line of ours\n")
        running.stdin.flush()
        assert running.stdout.readline()  # it has begun
        running.send_signal(number)
        _, said = running.communicate(timeout=60)

    assert running.returncode == ExitCode.INTERRUPTED, said
    assert said.splitlines()[-1].endswith(": interrupted")
    assert "Traceback" not in said


@pytest.fixture
def kept_handlers() -> Iterator[None]:
    """Set the handlers of a test back to what they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("kept_handlers")
def test_sigterm_reaches_asyncio_as_ctrl_c_does() -> None:
    """Between two steps of the main task, where each object is whole, not within one."""
    reached: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("end of the step")
            await asyncio.sleep(60)
        finally:
            reached.append("end of the task")

    raise_interrupts()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())

    assert reached == ["end of the step", "end of the task"]


def _ignore_interrupts() -> None:
    # Python itself leaves it so, and what takes the signal then is our code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
