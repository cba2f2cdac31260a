"""Which records of a partition are done, in whatever order they finish. Pure.

The committed offset is the low watermark: below it everything is done. What is done above it
travels in the commit's metadata as a bitmap, so that a restart skips it, and one hanging image
costs the others nothing.
"""

import binascii
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Final

MAX_METADATA_BYTES: Final = 4096  # the broker's offset.metadata.max.bytes, by default
_FORMAT: Final = "il1:"
_CHECKSUM_BYTES: Final = 4
# Base64 turns three bytes into four characters; eight offsets are a byte.
MAX_SPAN: Final = ((MAX_METADATA_BYTES - len(_FORMAT)) // 4 * 3 - _CHECKSUM_BYTES) * 8


class ForeignMetadata(ValueError):
    """A commit's metadata that this version did not write, or that was damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What is committed: the next offset to read, and the done offsets above it, encoded."""

    offset: int
    metadata: str = ""


class Completion:
    """Follows the records of one partition from being taken to being done."""

    def __init__(self, offset: int, done_above: frozenset[int] = frozenset()) -> None:
        self._next_offset = offset
        self._open: dict[int, None] = {}  # taken and not done, in order of their offsets
        self._done_above = set(done_above)

    @classmethod
    def from_position(cls, position: Position) -> "Completion":
        """Go on from what was committed.

        Raises:
            ForeignMetadata: the metadata is not ours; starting from the bare offset is safe, since
                nothing above it has an outcome that this format could have recorded.
        """
        return cls(position.offset, _decode(position))

    @property
    def next_offset(self) -> int:
        """The lowest offset that was never taken."""
        return self._next_offset

    @property
    def watermark(self) -> int:
        """The lowest offset that is not done."""
        return next(iter(self._open), self._next_offset)

    @property
    def limit(self) -> int:
        """The lowest offset that does not fit into the bitmap."""
        return self.watermark + MAX_SPAN

    @property
    def room(self) -> int:
        """How many offsets above the highest taken one still fit into the bitmap."""
        return self.limit - self._next_offset

    def take(self, offset: int) -> bool:
        """Note that a record was read; True if it is to be processed, False if it was before.

        Offsets come in rising order, with gaps where the log has none for us (transaction markers).
        """
        if offset < self._next_offset:
            return False
        self._next_offset = offset + 1
        if offset in self._done_above:
            return False
        self._open[offset] = None
        return True

    def done(self, offset: int) -> None:
        """Note that the outcome of a taken record goes into the next commit."""
        del self._open[offset]
        self._done_above.add(offset)

    def position(self) -> Position:
        """Return what to commit."""
        watermark = self.watermark
        self._done_above = {offset for offset in self._done_above if offset > watermark}
        return Position(offset=watermark, metadata=_encode(watermark, self._done_above))


def _encode(watermark: int, done_above: set[int]) -> str:
    if not done_above:
        return ""
    bits = 0
    for offset in done_above:
        bits |= 1 << (offset - watermark)
    bitmap = bits.to_bytes((max(done_above) - watermark) // 8 + 1, "little")
    return _FORMAT + b64encode(_checksum(watermark, bitmap) + bitmap).decode()


def _decode(position: Position) -> frozenset[int]:
    if not position.metadata:
        return frozenset()
    if not position.metadata.startswith(_FORMAT) or len(position.metadata) > MAX_METADATA_BYTES:
        raise ForeignMetadata("the committed metadata was not written by this program")
    try:
        packed = b64decode(position.metadata.removeprefix(_FORMAT), validate=True)
    except binascii.Error as exc:
        raise ForeignMetadata("the committed metadata is not base64") from exc
    checksum, bitmap = packed[:_CHECKSUM_BYTES], packed[_CHECKSUM_BYTES:]
    if checksum != _checksum(position.offset, bitmap):
        raise ForeignMetadata("the committed metadata does not match its checksum")
    bits = int.from_bytes(bitmap, "little")
    return frozenset(position.offset + i for i in range(bits.bit_length()) if bits >> i & 1)


def _checksum(watermark: int, bitmap: bytes) -> bytes:
    """Cover the offset too: a bitmap beside an offset that somebody reset means nothing."""
    return zlib.crc32(bitmap, watermark & 0xFFFFFFFF).to_bytes(_CHECKSUM_BYTES, "little")
