"""ALIVE_FILE: what cannot be written is said at the start, and later ends nothing."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.runtime.alive_file import AliveFile
from imagelane.exits import ExitCode, FatalError


def test_file_is_old_until_it_is_touched(tmp_path: Path) -> None:
    """One that a former process left does not speak for this one."""
    path = tmp_path / "alive"
    path.touch()
    alive = AliveFile.open(str(path))
    assert alive
    assert path.stat().st_mtime == 0
    alive.touch()
    assert path.stat().st_mtime > 0


@pytest.mark.parametrize("path", ["/proc/alive", "/missing/alive", "/dev/null/alive", "a\0b"])
def test_file_that_cannot_be_written_stops_the_start(path: str) -> None:
    """As on a read-only root: with the setting's name, and as a fault of the settings."""
    with pytest.raises(FatalError, match="ALIVE_FILE") as caught:
        AliveFile.open(path)
    assert caught.value.code is ExitCode.SETTINGS


def test_file_that_cannot_be_written_later_is_a_warning(tmp_path: Path) -> None:
    """Once, until it can be written again; the process goes on."""
    folder = tmp_path / "folder"
    folder.mkdir()
    alive = AliveFile.open(str(folder / "alive"))
    assert alive
    with capture_logs() as lines:
        (folder / "alive").unlink()
        folder.rmdir()
        alive.touch()
        alive.touch()
        folder.mkdir()
        alive.touch()
        (folder / "alive").unlink()
        folder.rmdir()
        alive.touch()
    assert [line["event"] for line in lines] == ["alive file not touched"] * 2


def test_without_the_setting_there_is_none() -> None:
    """The probes of a port, or nothing, are looked at instead."""
    assert AliveFile.open(None) is None
