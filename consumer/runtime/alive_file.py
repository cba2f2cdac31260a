"""A file whose age shows a health check whether the process is live."""

import os
from pathlib import Path
from typing import Self

import structlog

from imagelane.exits import ExitCode, FatalError

log = structlog.get_logger()


class AliveFile:
    """Touched while the process is live; a failed touch is logged and ends nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False

    @classmethod
    def open(cls, path: str | None) -> Self | None:
        """Create the file with the oldest time, which is not live; None if `path` is None.

        Raises:
            FatalError: the file cannot be written, as on a read-only root.
        """
        if path is None:
            return None
        try:
            Path(path).touch()
            os.utime(path, (0, 0))
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or "not a path"
            raise FatalError(
                ExitCode.SETTINGS, f"ALIVE_FILE: {path}: {reason}; name a file that can be written"
            ) from exc
        return cls(Path(path))

    def touch(self) -> None:
        """Set the file's time to now; log one warning for failures in a row."""
        try:
            self._path.touch()
            self._failed = False
        except OSError as exc:
            if not self._failed:
                log.warning("alive file not touched", reason=exc.strerror)
            self._failed = True
