"""Sources of images: from a reference to its bytes, within limits.

`Sources` is the table of allowed schemes; any other scheme is forbidden. Each source raises
`Failed` or `Unavailable` with a code of stage `fetch`, and names the image by `display` only:
messages go into results, dead letters and logs.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import Reservation
from consumer.images.loop_clock import LoopClock
from consumer.images.sealed import SealedImage
from imagelane.uris import display
from schemas import Code, ImageReference

# The setting that allows each scheme.
_SETTINGS: Final = {
    "file": "FILE_ROOTS",
    "data": "DATA_MAX_BYTES",
    "http": "ALLOWED_HOSTS",
    "https": "ALLOWED_HOSTS",
    "s3": "S3_BUCKETS",
}


class Room(Protocol):
    """Memory that a fetch may fill."""

    async def resize(self, byte_length: int) -> None:
        """Wait until that many bytes in all may be held."""


class ImageSource(Protocol):
    """Fetches images of one scheme, in a fetching process."""

    async def fetch(self, uri: str, max_bytes: int, room: Room) -> bytes:
        """Return the bytes at `uri`, at most `max_bytes`, after `room` has them reserved.

        Raises:
            Failed: the reference is not allowed, names nothing, or names too many bytes.
            Unavailable: the source does not answer now.
        """


class SealedSource(Protocol):
    """Fetches images of one scheme, as the consumer's own process sees it."""

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
        """Return the image at `uri`, of at most `max_bytes`, reserved; the caller closes it.

        A host that hangs without an answer holds no memory.

        Raises:
            Failed, Unavailable: as `ImageSource.fetch` does.
        """


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The allowed schemes, lower case and without the colon, each with its source.

    `clock` leaves our own pauses out; `ready` waits until all sources can fetch, or raises
    FatalError.
    """

    by_scheme: Mapping[str, SealedSource]
    max_bytes: int
    clock: LoopClock = field(default_factory=LoopClock)
    ready: Callable[[], Awaitable[None]] = _at_once

    async def fetch(self, reference: ImageReference, reservation: Reservation) -> SealedImage:
        """Return the image, whose bytes are reserved, and check its digest if there is one.

        The caller closes it.

        Raises:
            Failed, Unavailable: as the source does; also `forbidden_source` for a scheme that is
                not in the table, and `digest_mismatch`.
        """
        uri = reference.uri
        source = self.by_scheme.get(uri.partition(":")[0].lower()) if ":" in uri else None
        if source is None:
            allowed = ", ".join(f"{scheme}:" for scheme in sorted(self.by_scheme)) or "nothing"
            setting = _SETTINGS.get(uri.partition(":")[0].lower() if ":" in uri else "")
            opens = f"; {setting} opens it" if setting else ""
            raise forbidden(uri, f"its scheme is not allowed ({allowed} is{opens})")
        image = await source.fetch(uri, self.max_bytes, reservation)
        if reference.sha256 not in (None, image.sha256):
            image.close()
            raise Failed(
                Code.DIGEST_MISMATCH,
                f"{display(uri)}: its SHA-256 is {image.sha256}, the request says "
                f"{reference.sha256}",
            )
        return image


def forbidden(uri: str, reason: str) -> Failed:
    """Return the error of a reference that may not be followed."""
    return Failed(Code.FORBIDDEN_SOURCE, f"{display(uri)}: {reason}")


def too_large(uri: str, max_bytes: int) -> Failed:
    """Return the error of an image over the limit."""
    return Failed(Code.IMAGE_TOO_LARGE, f"{display(uri)}: over {max_bytes} bytes")


def unavailable(uri: str, reason: str, seconds: float | None = None) -> Unavailable:
    """Return the error of a source that may answer later, after `seconds` if the host says so."""
    return Unavailable(Code.IMAGE_UNAVAILABLE, f"{display(uri)}: {reason}", seconds)
