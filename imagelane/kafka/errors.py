"""aiokafka's errors and Kafka's error codes as one of two errors.

`Unanswered`: a retry may heal it. `FatalError`: no retry does; `ACCESS` for a refused right or
login, `PROTOCOL` for every other refusal and for an unreadable answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerResponseError,
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    for_code,
)

from imagelane.exits import ExitCode, FatalError

# Codes that Kafka's own clients retry, as far as an answer here can have them.
_RETRIABLE: Final = frozenset({3, 5, 6, 7, 9, 13, 14, 15, 16, 41, 56, 74, 75, 88, 89, 100})
_ACCESS: Final = frozenset({29, 30, 31, 33, 34, 53, 54, 58, 65, 66})
NO_SUCH_GROUP: Final = 69
_NAMES: Final = {  # aiokafka lacks these, or has another name for them
    13: "NETWORK_EXCEPTION",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    88: "UNSTABLE_OFFSET_COMMIT",
    89: "THROTTLING_QUOTA_EXCEEDED",
    100: "UNKNOWN_TOPIC_ID",
}
_DENIED: Final = (AuthenticationFailedError, AuthenticationMethodNotSupported)
# Retriable, though aiokafka does not mark its own timeouts so.
_TIMEOUTS: Final = (KafkaTimeoutError, KafkaUnavailableError)


class Unanswered(Exception):
    """No usable answer so far; the message says why. A retry may heal it."""


def raise_for_code(code: int, doing: str) -> None:
    """Raise the error of an answer's error code, unless that is 0."""
    if code:
        raise _fault(code, f"{doing}: {_error_name(code)}")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translate the errors of a call of aiokafka."""
    try:
        yield
    except BrokerResponseError as exc:
        raise _fault(exc.errno, f"{doing}: {exc}") from exc
    except _DENIED as exc:
        raise FatalError(ExitCode.ACCESS, f"access: {doing}: {exc}") from exc
    except KafkaError as exc:
        if exc.retriable or isinstance(exc, _TIMEOUTS):
            raise Unanswered(f"{doing}: {exc}") from exc
        raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: {exc}") from exc
    except (TimeoutError, OSError) as exc:
        raise Unanswered(f"{doing}: {exc!r}") from exc


@contextmanager
def answers_needed(doing: str) -> Iterator[None]:
    """Translate the errors of a call; those that a retry may heal end the process as well.

    Raises:
        FatalError: `BROKER`, `ACCESS` or `PROTOCOL`.
    """
    try:
        with translated(doing):
            yield
    except Unanswered as exc:
        raise FatalError(ExitCode.BROKER, f"broker: {exc}") from exc


def access_fault(error: Exception, doing: str) -> FatalError | None:
    """Return the fatal error for a refused right; None for any other error."""
    if isinstance(error, BrokerResponseError) and error.errno in _ACCESS:
        return FatalError(ExitCode.ACCESS, f"access: {doing}: {error}")
    return None


def _fault(code: int, message: str) -> Exception:
    if code in _ACCESS:
        return FatalError(ExitCode.ACCESS, f"access: {message}")
    if code in _RETRIABLE:
        return Unanswered(message)
    return FatalError(ExitCode.PROTOCOL, f"protocol: {message}")


def _error_name(code: int) -> str:
    known = for_code(code)
    name = _NAMES.get(code) or (known.message if known.errno == code else "an unknown error")
    return f"{name} ({code})"
