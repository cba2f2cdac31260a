"""The last words of a process whose event loop stands still: text, or one line of JSON."""

import json
import subprocess
import sys

from imagelane.exits import ExitCode

SCRIPT = """
import time
from consumer.runtime.exit_timer import ExitTimer
def stands_still():
    time.sleep(60)
ExitTimer("the loop", is_json={is_json}).set(0)
stands_still()
"""


def last_words(*, is_json: bool) -> str:
    """Return what a process says that is ended while it stands still."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(is_json=is_json)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == ExitCode.STUCK
    return done.stderr


def test_reason_and_stacks_are_lines_of_text() -> None:
    """For a person: the line first, then Python's own dump."""
    line, _, dump = last_words(is_json=False).partition("\n")
    assert line == "imagelane: stuck: the loop; nothing is lost, start again"
    assert "in stands_still" in dump


def test_where_the_log_is_json_they_are_one_line_of_it() -> None:
    """What collects the log reads nothing else."""
    [line] = last_words(is_json=True).splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"]) == ("fatal error", "error")
    assert (event["reason"], event["exit_code"]) == (
        "stuck: the loop; nothing is lost, start again",
        ExitCode.STUCK,
    )
    assert event["stacks"]["MainThread"][-1].endswith("stands_still")
