"""What the README prints is what the code does."""

import re
import runpy

import pytest

from consumer.telemetry import metrics
from imagelane.exits import ExitCode
from tests.conftest import ROOT


@pytest.mark.parametrize("side", ["consumer", "producer", "gallery"])
def test_settings_table_is_that_of_the_code(side: str) -> None:
    """The tables in the README are those that `make docs` writes: every setting is in one."""
    text = (ROOT / "README.md").read_text()
    tables = runpy.run_path(str(ROOT / "docs" / "write_tables.py"))
    assert tables["table_in"](text, side)[0] == tables["TABLES"][side]


def test_metrics_table_is_that_of_the_code() -> None:
    """docs/metrics.md has the table that `make docs` writes: every metric is in it."""
    text = (ROOT / "docs/metrics.md").read_text()
    tables = runpy.run_path(str(ROOT / "docs" / "write_tables.py"))
    assert tables["metrics_in"](text)[0] == metrics.table() + "\n"


def test_exit_codes_are_all_documented() -> None:
    """Every code of the programs has its row."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.M)
    assert {(int(code), name) for code, name in rows} == {(c.value, c.name) for c in ExitCode}
