"""What can go wrong for whoever publishes or reads: all derive from `ImagelaneError`.

`FatalError` (no broker, a missing topic, a bad setting) is here too. Each message says what to do.
"""

from imagelane.exits import ExitCode, FatalError, ImagelaneError

__all__ = [
    "ExitCode",
    "FatalError",
    "ImagelaneError",
    "InvalidRequest",
    "NotOpen",
    "ResultTimeout",
    "TooLarge",
]


class TooLarge(ImagelaneError, ValueError):
    """A request that is too large for the wire or for the topic; nothing was published."""


class InvalidRequest(ImagelaneError, ValueError):
    """A request that the wire contract does not allow, or a path that names no file."""


class NotOpen(ImagelaneError, RuntimeError):
    """Used before `async with`, after its end, or for results it was not opened for."""


class ResultTimeout(ImagelaneError, TimeoutError):
    """Nothing is known of a request yet; it may be asked for again."""
