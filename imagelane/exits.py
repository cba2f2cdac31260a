"""The exit codes of all programs, and the error that carries one."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes, sysexits.h's where one fits; 2 is a usage error of the command line."""

    OK = 0
    FAILED = 1  # a request was refused, failed or timed out
    SETTINGS = 78  # EX_CONFIG: a setting is missing or has a bad value
    BROKER = 69  # EX_UNAVAILABLE: no broker answers
    TOPIC = 72  # EX_OSFILE: a topic does not exist
    ACCESS = 67  # EX_NOUSER: Kafka refuses a right or the login
    PROTOCOL = 76  # EX_PROTOCOL: Kafka gave an answer that no retry can heal
    NO_POSITION = 73  # EX_CANTCREAT: the group has results but no position to begin at
    POSITION = 65  # EX_DATAERR: the group's position vanished while it was in use
    TLS = 68  # EX_NOHOST: the brokers and we do not trust each other's certificates
    MODEL = 66  # EX_NOINPUT: a checkpoint is missing, broken, or not CLIP or BLIP
    DEVICE = 71  # EX_OSERR: the device is not there, or failed
    FENCED = 75  # EX_TEMPFAIL: another consumer owns the partition now; start again
    DATABASE = 79  # no sysexit fits: the database of `index` does not answer, or refuses
    STUCK = 74  # EX_IOERR: no progress, or not in the group, for too long; start again
    BUG = 70  # EX_SOFTWARE: an unforeseen error
    INTERRUPTED = 130  # 128 + SIGINT: Ctrl-C, or a stop, before the end


class ImagelaneError(Exception):
    """Base of all errors that a caller can meet."""


class FatalError(ImagelaneError):
    """Ends the program with an exit code; its one line says what is wrong and what to do."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def fatal_error_in(error: BaseException) -> FatalError | None:
    """Return the fatal error that `error` is or holds: a task group wraps those of its tasks."""
    if isinstance(error, BaseExceptionGroup):
        found = (fatal_error_in(one) for one in error.exceptions)
        return next((one for one in found if one), None)
    return error if isinstance(error, FatalError) else None


class OutputClosed(ImagelaneError):
    """The reader of our output closed it, as `head` does; the program ends in silence."""
