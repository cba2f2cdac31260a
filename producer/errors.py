"""Errors of publishing and reading; each message says what to do."""

from imagelane.exits import ImagelaneError


class TooLarge(ImagelaneError, ValueError):
    """A request that is too large for the wire or for the topic; nothing was published."""


class InvalidRequest(ImagelaneError, ValueError):
    """A request that breaks the wire contract, or a path without a file."""


class NotOpen(ImagelaneError, RuntimeError):
    """Used before `async with`, after its end, or for results it was not opened for."""


class ResultTimeout(ImagelaneError, TimeoutError):
    """No outcome came in time; another wait may bring it."""
