"""What the README prints is what the code does."""

import re

from consumer.settings import settings_table
from imagelane.exits import ExitCode
from tests.conftest import ROOT


def test_settings_table_is_that_of_the_code():
    """The table in the README is the one that `python -m consumer settings` prints."""
    text = (ROOT / "README.md").read_text()
    [table] = re.findall(r"<!-- settings:.*?-->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert table == settings_table()


def test_exit_codes_are_all_documented():
    """Every code of the programs has its row."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.M)
    assert {(int(code), name) for code, name in rows} == {(c.value, c.name) for c in ExitCode}
