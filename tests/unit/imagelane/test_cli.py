"""The one command: what it lists, what it loads, and how it ends."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imagelane.cli import CONSUMER, PRODUCER, SETTINGS, Subcommand, application
from imagelane.env import Environment
from imagelane.exits import ExitCode, FatalError, fatal_error_in

ROOT = Path(__file__).parents[3]
ALL = {**PRODUCER, **CONSUMER, **SETTINGS}
SECRET = "a-secret-that-only-this-test-knows-0123456789"


def imagelane(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run the command line in this process, and return what it prints."""
    done = CliRunner().invoke(
        application(ALL, rich=False),
        arguments,
        obj=Environment(("environment", environment or {})),
        catch_exceptions=False,
    )
    return done.stdout


def process(
    *arguments: str, shell_tail: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = f'"$0" -m imagelane "$@" {shell_tail}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
    )


@pytest.mark.parametrize("name", ALL)
def test_each_summary_is_that_of_the_command(name: str) -> None:
    """It is known before the command is loaded, and is not cut."""
    module, _, attribute = ALL[name].target.partition(":")
    docstring = getattr(import_module(module), attribute).__doc__

    assert docstring.splitlines()[0] == ALL[name].summary
    assert ALL[name].summary in imagelane("-h")


def test_help_loads_no_side() -> None:
    """What takes seconds to import is imported by what needs it."""
    code = (
        "import sys; from imagelane.__main__ import main; sys.argv[1:] = ['-h']; main();"
        "sys.exit(bool({'producer', 'aiokafka', 'pydantic', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=60)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CONSUMER)
def test_help_of_the_gpu_side_imports_nothing_that_takes_long(name: str) -> None:
    """Its own broker client, torch and decoders come when it runs."""
    heavy = ("torch", "transformers", "numpy", "aiokafka", "aiohttp", "botocore")
    code = (
        "import sys; from imagelane.__main__ import main; main();"
        f"print('loaded', sorted(set(sys.modules) & set({heavy!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_version_is_the_distributions() -> None:
    """With its name."""
    assert imagelane("--version").startswith("imagelane ")


def test_options_of_the_connection_come_before_the_environment(tmp_path: Path) -> None:
    """With every subcommand; a secret never on the command line."""
    (tmp_path / "secret").write_text(SECRET)
    environment = {"BOOTSTRAP_SERVERS": "a:1", "SECRET_API_KEY": "x" * 40}

    said = imagelane(
        "settings", "-b", "b:2", "--secret-file", str(tmp_path / "secret"), environment=environment
    )

    assert f"{'BOOTSTRAP_SERVERS=b:2':<44}  from --brokers" in said
    assert f"from --secret-file, file {tmp_path / 'secret'}" in said


def test_a_command_without_its_packages_says_what_to_install() -> None:
    """The ingestion side has no torch."""
    lacking = {"lacking": Subcommand(target="no_such_package:x", summary="s", extra="consumer")}

    with pytest.raises(FatalError, match=r"pip install 'imagelane\[consumer\]'"):
        CliRunner().invoke(
            application(lacking, rich=False), ["lacking"], catch_exceptions=False, obj=None
        )


@pytest.mark.parametrize("name", ["schemas", "producer", "consumer"])
def test_a_namesake_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    """An application's own `schemas` on the path gives one clear line."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    command = {"schemas": "settings", "producer": "topics", "consumer": "check"}[name]

    done = subprocess.run(
        [sys.executable, "-m", "imagelane", command],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"package named {name}" in done.stderr
    assert str(tmp_path) in done.stderr


def test_a_reader_that_goes_ends_it_in_silence() -> None:
    """As `| head` does."""
    done = process("settings", "--markdown", shell_tail="| head -n 1", SECRET_API_KEY=SECRET)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_the_last_words_are_json_where_the_log_is() -> None:
    """Whatever collects the log reads nothing else; every fault of the settings is in it."""
    done = process("check", LOG_FORMAT="json", DEVICE="gpu")

    assert (done.returncode, done.stdout) == (78, "")
    [line] = done.stderr.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["exit_code"]) == ("fatal error", "error", 78)
    assert "SECRET_API_KEY: missing" in event["reason"]
    assert "DEVICE: has another form" in event["reason"]


def test_paragraphs_of_a_help_are_wrapped_once() -> None:
    """By the terminal; the lines of an example stay."""
    lines = [line.strip() for line in imagelane("publish", "-h").splitlines()]

    assert not [line for line in lines[:9] if 0 < len(line.split()) < 3 and line[-1] != ":"]
    assert "imagelane publish pictures/ --wait" in lines


def test_a_secret_file_that_is_not_there_is_named() -> None:
    """With the option that named it."""
    done = process("results", "--secret-file", "/tmp/no-such-file")

    assert done.returncode == 2
    assert "'--secret-file': " in done.stderr
    assert "/tmp/no-such-file" in done.stderr


def test_fatal_error_of_a_task_is_found_in_its_groups() -> None:
    """Whatever else failed beside it."""
    fatal = FatalError(ExitCode.SETTINGS, "gallery: port taken")
    group = ExceptionGroup("", [OSError(), ExceptionGroup("", [ValueError(), fatal])])

    assert fatal_error_in(group) is fatal
    assert fatal_error_in(fatal) is fatal
    assert fatal_error_in(ExceptionGroup("", [OSError()])) is None
