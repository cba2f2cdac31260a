"""The command line without a broker: help, exit codes, one line for what is wrong."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imagelane.cli import PRODUCER, application
from imagelane.env import Environment
from imagelane.exits import FatalError

SECRET = "a-secret-that-only-this-test-knows-0123456789"
COMMANDS = tuple(PRODUCER)
REQUEST = b'{"version":1,"id":"a1","image":{"uri":"file:///data/cat.jpg"}}\n'
ROOT = Path(__file__).parents[3]
WIRE = {"SECRET_API_KEY": SECRET, "BOOTSTRAP_SERVERS": "127.0.0.1:1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    code: int
    stdout: str
    stderr: str


def producer(
    *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> Done:
    """Run the command line in this process: exit code and line are those of a `FatalError`."""
    done = CliRunner().invoke(
        application(PRODUCER, rich=False),
        arguments,
        input=stdin,
        obj=Environment(("test", WIRE | (environment or {}))),
    )
    if isinstance(done.exception, FatalError):
        return Done(code=done.exception.code, stdout=done.stdout, stderr=str(done.exception))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(code=done.exit_code, stdout=done.stdout, stderr=done.stderr)


def process(*arguments: str, environment: dict[str, str]) -> Done:
    """Run `python -m producer`."""
    done = subprocess.run(
        [sys.executable, "-m", "producer", *arguments],
        capture_output=True,
        timeout=30,
        text=True,
        cwd="/",  # where no .env of the checkout is
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
    )
    return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    """`-h` is enough. In a pipe it is plain."""
    done = producer(command, "-h")

    assert done.code == 0
    assert "imagelane " + command in done.stdout.partition("Example")[2]
    assert done.stdout.isascii()


def test_without_a_command_there_is_help() -> None:
    """And a usage error's exit code."""
    done = producer()

    assert done.code == 2
    assert all(command in done.stdout + done.stderr for command in COMMANDS)


@pytest.mark.parametrize(
    "command", ["results", "publish s3://b/k", "sign --topic t", "redrive --all"]
)
@pytest.mark.parametrize("secret", ["", "short"])
def test_no_secret_ends_with_78(command: str, secret: str) -> None:
    """There is no default, and no short one."""
    done = producer(*command.split(), environment={"SECRET_API_KEY": secret})

    assert (done.code, done.stdout) == (78, "")
    assert "SECRET_API_KEY" in done.stderr


@pytest.mark.parametrize("command", ["results", "publish s3://b/k", "topics", "redrive --all"])
def test_no_broker_ends_with_69(command: str) -> None:
    """And says which it asked."""
    done = producer(*command.split())

    assert (done.code, done.stdout) == (69, "")
    assert "127.0.0.1:1" in done.stderr


def test_the_process_ends_with_one_line_and_no_traceback() -> None:
    """Though the client logs each of its attempts."""
    no_secret = process("results", environment={})
    no_broker = process("results", environment=WIRE)

    assert (no_secret.code, no_secret.stderr.count("\n")) == (78, 1)
    assert no_secret.stderr.startswith("producer: settings: SECRET_API_KEY: missing")
    assert (no_broker.code, no_broker.stderr.count("\n")) == (69, 1)
    assert no_broker.stderr.startswith("producer: broker: none answers at 127.0.0.1:1; is Kafka up")


def test_creating_topics_needs_no_secret() -> None:
    """Whoever may create them need not be able to sign."""
    assert producer("topics", environment={"SECRET_API_KEY": ""}).code == 69


@pytest.mark.parametrize("argument", ["missing.jpg", "missing/*.jpg"])
def test_a_missing_file_is_reported_before_the_broker_is_asked(argument: str) -> None:
    """Hence 1, and not 69."""
    done = producer("publish", "s3://b/k", argument)

    assert done.code == 1
    assert argument in done.stderr


def test_an_empty_folder_has_nothing_to_publish(tmp_path: Path) -> None:
    """It says so."""
    done = producer("publish", str(tmp_path))

    assert done.code == 1
    assert "nothing to publish" in done.stderr


@pytest.mark.parametrize("option", [["--tasks", "paint"], ["--tasks", ""]])
def test_a_bad_option_is_a_usage_error(option: list[str]) -> None:
    """Named, with what it may be."""
    done = producer("publish", "s3://b/k", *option)

    assert done.code == 2
    assert option[0] in done.stderr


@pytest.mark.parametrize(
    "options", ["", "--all --id a1", "--code paint", "--code stale,", "--since yesterday"]
)
def test_redrive_asks_for_a_selection_that_means_something(options: str) -> None:
    """Everything only if `--all` says so, and alone."""
    done = producer("redrive", *options.split())

    assert (done.code, done.stdout) == (2, "")
    assert "--" in done.stderr.partition("Error")[2]


def test_what_sign_prints_verify_accepts() -> None:
    """Through the processes, a request and a null key among them."""
    for key in ([], ["--key", "cats & dogs"], ["--key", ""]):
        line = producer("sign", "--topic", "image.ingest", *key, stdin=REQUEST)
        checked = producer("verify", "--topic", "image.ingest", stdin=line.stdout.encode())

        assert (checked.code, checked.stdout) == (0, "ok a1\n")


def test_verify_names_code_and_reason_and_ends_with_1() -> None:
    """One line for each line, good ones too."""
    good = producer("sign", "--topic", "image.ingest", stdin=REQUEST).stdout
    old = producer("sign", "--topic", "image.ingest", "--timestamp", "17", stdin=REQUEST).stdout

    done = producer("verify", "--topic", "image.ingest", stdin=f"{good}{old}hello\n".encode())

    assert done.code == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok", "stale", "unsigned"]


def test_at_judges_a_line_as_of_then() -> None:
    """What is old today was not then."""
    old = producer("sign", "--topic", "image.ingest", "--timestamp", "17", stdin=REQUEST).stdout

    done = producer("verify", "--topic", "image.ingest", "--at", "20", stdin=old.encode())

    assert (done.code, done.stdout) == (0, "ok a1\n")


def test_sign_goes_on_after_a_bad_line_and_ends_with_1() -> None:
    """With the number of the line."""
    done = producer("sign", "--topic", "image.ingest", stdin=b"nonsense\n" + REQUEST)

    assert done.code == 1
    assert done.stderr.startswith("line 1: ")
    assert done.stdout.count("\n") == 1


def test_signing_for_a_topic_that_nobody_reads_is_named() -> None:
    """A misspelt topic makes signatures that no reader takes."""
    done = producer("sign", "--topic", "image.ingst", stdin=REQUEST)

    assert (done.code, done.stdout.count("\n")) == (0, 1)
    assert done.stderr.startswith("image.ingst is no topic of the settings")


def test_verifying_nothing_says_so() -> None:
    """An empty file would otherwise pass for a good one."""
    done = producer("verify", "--topic", "image.ingest")

    assert (done.code, done.stdout) == (1, "")
    assert "nothing was verified" in done.stderr


def test_kcat_format_is_one_command_a_value() -> None:
    """To the configured brokers."""
    done = producer("sign", "--topic", "t", "--format", "kcat", stdin=REQUEST)

    assert "| kcat -P -b 127.0.0.1:1 -t t -H sig-id=a1" in done.stdout
    assert json.loads(REQUEST) == json.loads(done.stdout.split("'")[1])


def test_ctrl_c_ends_with_130_and_one_line() -> None:
    """Although a read of standard input is under way."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "producer", "verify", "--topic", "t"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | WIRE,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(b"hello\n")
        running.stdin.flush()
        running.stdout.readline()  # it is reading now
        running.send_signal(signal.SIGINT)

        assert running.wait(60) == 130
        assert running.stderr.read() == b"producer: interrupted\n"
