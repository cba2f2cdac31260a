"""The answers of a fetching process: an image, a redirect or a verdict, and nothing else."""

import os
from typing import Any, Final

from consumer.errors import Failed, Unavailable
from consumer.images.frames import Frames
from consumer.images.sealed import SealedImage
from consumer.images.sources.hosts import NotAllowedError
from consumer.images.sources.http import Redirect
from schemas import Code, Stage

_CODES: Final = {str(code): code for code in Code if code.stage is not Stage.ADMIT}


def answer_of(
    frames: Frames, kind: str, facts: list[Any]
) -> tuple[SealedImage | Redirect | Exception, int]:
    """Return the value of an answer, and the bytes of the window that it takes.

    Raises:
        ValueError: the message is no answer.
    """
    match [kind, *facts]:
        case ["image", str(sha256), float(decode_seconds), int(lent_bytes)] if len(sha256) == 64:
            descriptor = frames.take_descriptor()
            try:
                return SealedImage.received(descriptor, sha256, decode_seconds), lent_bytes
            except ValueError:
                os.close(descriptor)
                raise
    return _answer_without_image(kind, facts), 0


def _answer_without_image(kind: str, facts: list[Any]) -> Redirect | Exception:
    match [kind, *facts]:
        case ["redirect", str(location), float(left_seconds)]:
            octets = location.encode("latin-1")
            return Redirect(
                location=octets.decode("utf-8", "surrogateescape"), left_seconds=left_seconds
            )
        case ["forbidden", str(reason)]:
            return NotAllowedError(reason)
        case ["failed", str(code), str(message)]:
            return Failed(_code(code), message)
        case ["unavailable", str(code), str(message), (float() | int() | None) as seconds]:
            return Unavailable(_code(code), message, seconds)
    raise ValueError("not an answer")


def _code(text: str) -> Code:
    if text not in _CODES:
        raise ValueError("not a code of a fetch")
    return _CODES[text]


def discard(found: SealedImage | Redirect | Exception) -> None:
    """Close the image of an answer that nobody waits for."""
    if isinstance(found, SealedImage):
        found.close()
