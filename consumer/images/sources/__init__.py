"""Where images come from: a reference to its bytes, within limits.

`Sources` is the table of allowed schemes. A scheme more is one entry more; what is not in the table
is forbidden. Each source raises `Failed` or `Unavailable` with a code of stage `fetch`, and names
the image by `display` only: messages go into results, dead letters and logs.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import Reservation
from consumer.images.loop_clock import LoopClock
from imagelane.uris import display
from schemas import Code, ImageReference

# 64 KiB take about 0.1 ms to hash: less than a hop to a thread and back is worth.
_HASH_ON_LOOP_BYTES: Final = 65_536
# Which setting allows a scheme that is not in the table.
_SETTINGS: Final = {
    "file": "FILE_ROOTS",
    "data": "DATA_MAX_BYTES",
    "http": "ALLOWED_HOSTS",
    "https": "ALLOWED_HOSTS",
    "s3": "S3_BUCKETS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The bytes of an image and their SHA-256, 64 lower-case hex."""

    data: bytes
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Hash `data`."""
        return cls(data=data, sha256=hashlib.sha256(data).hexdigest())


class ImageSource(Protocol):
    """Fetches what one scheme names."""

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> bytes | Fetched:
        """Return the bytes at `uri`, at most `max_bytes` of them; `Fetched` where it hashed them.

        Bytes are reserved before they are read. A host that hangs without an answer holds none;
        files that hang hold half of the budget at most.

        Raises:
            Failed: the reference is not allowed, names nothing, or too much.
            Unavailable: the place does not answer now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The allowed schemes, lower case and without the colon, each with its source.

    `clock` tells the time of the hosts from that of our own pauses.
    """

    by_scheme: Mapping[str, ImageSource]
    max_bytes: int
    clock: LoopClock = field(default_factory=LoopClock)

    async def fetch(self, reference: ImageReference, reservation: Reservation) -> Fetched:
        """Return the image, whose bytes are reserved, and check its digest if there is one.

        Raises:
            Failed: `forbidden_source` for a scheme that is not in the table, `digest_mismatch`,
                or what the source says.
            Unavailable: the source does not answer now.
        """
        uri = reference.uri
        source = self.by_scheme.get(uri.partition(":")[0].lower()) if ":" in uri else None
        if source is None:
            allowed = ", ".join(f"{scheme}:" for scheme in sorted(self.by_scheme)) or "nothing"
            setting = _SETTINGS.get(uri.partition(":")[0].lower() if ":" in uri else "")
            opens = f"; {setting} opens it" if setting else ""
            raise forbidden(uri, f"its scheme is not allowed ({allowed} is{opens})")
        content = await source.fetch(uri, self.max_bytes, reservation)
        fetched = content if isinstance(content, Fetched) else await _hashed(content)
        if reference.sha256 is not None and reference.sha256 != fetched.sha256:
            raise Failed(
                Code.DIGEST_MISMATCH,
                f"{display(uri)}: its SHA-256 is {fetched.sha256}, the request says "
                f"{reference.sha256}",
            )
        return fetched


def forbidden(uri: str, reason: str) -> Failed:
    """Return the verdict of a reference that may not be followed."""
    return Failed(Code.FORBIDDEN_SOURCE, f"{display(uri)}: {reason}")


def too_large(uri: str, max_bytes: int) -> Failed:
    """Return the verdict of an image over the limit."""
    return Failed(Code.IMAGE_TOO_LARGE, f"{display(uri)}: over {max_bytes} bytes")


def unavailable(uri: str, reason: str, seconds: float | None = None) -> Unavailable:
    """Return the verdict of what may heal, after `seconds` if the host says so."""
    return Unavailable(Code.IMAGE_UNAVAILABLE, f"{display(uri)}: {reason}", seconds)


async def _hashed(data: bytes) -> Fetched:
    if len(data) <= _HASH_ON_LOOP_BYTES:
        return Fetched.of(data)
    return await asyncio.to_thread(Fetched.of, data)
