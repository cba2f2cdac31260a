"""The errors of an admitted record; `schemas.Refused` is that of a record not admitted."""

from schemas import Code


class Failed(Exception):
    """The request fails: `code` says why, `message` is for a person.

    The message goes into results and dead letters: no secret and no URL credential may be in it.
    """

    attempts = 1  # the retrying caller sets it
    # The stage that fails sets its own, for the times in the result.
    fetch_ms: float | None = None
    decode_ms: float | None = None

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Unavailable(Failed):
    """A failure that a retry may heal, after `retry_after_seconds` if the source asked for that."""

    def __init__(self, code: Code, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_seconds = retry_after_seconds
