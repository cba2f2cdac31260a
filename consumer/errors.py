"""What can end the way of an admitted record early; `schemas.Refused` is the stage before."""

from schemas import Code


class Failed(Exception):
    """This record has no embedding and no caption; `code` says why, `message` is for a person.

    The message goes into results and dead letters: no secret and no URL credential may be in it.
    """

    attempts = 1  # set by whoever tried more than once
    # Set by whoever had the stage under way, so that the result can tell where the time went.
    fetch_ms: float | None = None
    decode_ms: float | None = None

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Unavailable(Failed):
    """The same, but trying again may heal it, after `retry_after_seconds` if the source said so."""

    def __init__(self, code: Code, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_seconds = retry_after_seconds
