"""Values by name, of the first layer that has them; `.env` as editors save it."""

from pathlib import Path

import pytest

from imagelane.env import Environment, read_environment
from imagelane.exits import ExitCode, FatalError


def test_the_first_layer_counts() -> None:
    """An option over a variable, a variable over `.env`."""
    environment = Environment(("environment", {"A": "1"}), (".env", {"A": "2", "B": "3"}))
    overridden = environment.with_option("--a", {"A": "0"})

    assert dict(environment) == {"A": "1", "B": "3"}
    assert dict(overridden) == {"A": "0", "B": "3"}
    assert [overridden.origin(name) for name in "ABC"] == ["--a", ".env", None]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    """Windows' editor writes one."""
    (tmp_path / ".env").write_text("ONLY_HERE=é\n", encoding=encoding)

    assert read_environment(tmp_path / ".env")["ONLY_HERE"] == "é"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_another_encoding_is_a_line(tmp_path: Path, encoding: str) -> None:
    """PowerShell's `>` writes UTF-16."""
    (tmp_path / ".env").write_text("ONLY_HERE=é\n", encoding=encoding)

    with pytest.raises(FatalError, match="save it as UTF-8") as halt:
        read_environment(tmp_path / ".env")
    assert halt.value.code is ExitCode.SETTINGS


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_no_file_is_no_fault(tmp_path: Path, kind: str) -> None:
    """Docker makes a folder of a file that is not there."""
    if kind == "folder":
        (tmp_path / ".env").mkdir()

    assert "ONLY_HERE" not in read_environment(tmp_path / ".env")
