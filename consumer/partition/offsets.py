"""Which records of a partition are done, in whatever order they finish. Pure.

The committed offset is the low watermark: below it everything is done. What is done above it
travels in the commit's metadata, so that a restart skips it, and one hanging image costs the others
nothing. Few records are open and many are done, so the open ones are what is written down.
"""

import binascii
import zlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final

PartitionId = tuple[str, int]  # topic and number
MAX_METADATA_BYTES: Final = 4096  # the broker's offset.metadata.max.bytes, by default
_FORMAT: Final = "il2:"
_FIRST_FORMAT: Final = "il1:"  # a bitmap of what is done; read, no longer written
_CHECKSUM_BYTES: Final = 4
# Base64 turns three bytes into four characters.
_MAX_PACKED_BYTES: Final = (MAX_METADATA_BYTES - len(_FORMAT)) // 4 * 3 - _CHECKSUM_BYTES
_STEP: Final = 128  # a distance below this is one byte
# With one record open it is 128 offsets a byte; each other open one takes a byte of that.
MAX_SPAN: Final = _STEP * (_MAX_PACKED_BYTES - 1)
MAX_OPEN: Final = 3000  # and 65 bytes are left for distances that take two


class ForeignMetadata(ValueError):
    """A commit's metadata that this version did not write, or that was damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What is committed: the next offset to read, and what is done above it, encoded."""

    offset: int
    metadata: str = ""

    @classmethod
    def up_to(cls, offset: int) -> "Position":
        """Return the position below which everything is done, and above which nothing is."""
        return cls(offset=offset, metadata=_encode([offset]))

    @property
    def is_ours(self) -> bool:
        """Whether a worker committed it; one that a tool set has no metadata of ours."""
        return self.metadata.startswith((_FORMAT, _FIRST_FORMAT))


class OffsetTracker:
    """Follows the records of one partition from being taken to being done.

    `again` are the offsets above `offset`, and it itself, that are not done although `done_to` was
    reached before.
    """

    def __init__(self, offset: int, again: Sequence[int] = (), done_to: int = 0) -> None:
        self._next_offset = offset
        self._open: dict[int, None] = {}  # taken and not done, in order of their offsets
        self._again = deque(again)  # not done, and to be taken; all above those
        self._done_to = max(offset, done_to)  # from here on nothing is done

    @classmethod
    def from_position(cls, position: Position) -> "OffsetTracker":
        """Go on from what was committed.

        Raises:
            ForeignMetadata: the metadata is not ours; starting from the bare offset is safe, since
                nothing above it has an outcome that this format could have recorded.
        """
        if not position.metadata:
            return cls(position.offset)
        *again, done_to = _decode(position)
        return cls(position.offset, again, done_to)

    @property
    def next_offset(self) -> int:
        """The lowest offset that was never taken."""
        return self._next_offset

    @property
    def watermark(self) -> int:
        """The lowest offset that is not done."""
        return next(self._not_done(), max(self._next_offset, self._done_to))

    @property
    def limit(self) -> int:
        """The lowest offset that might not fit into the metadata, were it done now."""
        others = max(0, len(self._open) + len(self._again) - 1)
        return self.watermark + max(1, MAX_SPAN - _STEP * others)

    @property
    def room(self) -> int:
        """How many more records may be taken so that each of them will fit, done before others."""
        return max(0, self.limit - self._next_offset) // (_STEP + 1)

    def untaken(self, *, position: int, end: int) -> int:
        """Return how many offsets below `end` are to be taken, were the log read from `position`.

        What was done above the committed offset before this start is not.
        """
        return len(self._again) + max(0, end - max(self._next_offset, self._done_to, position))

    def take(self, offset: int) -> bool:
        """Note that a record was read; True if it is to be processed, False if it was before.

        Offsets come in rising order, with gaps where the log has none for us (transaction markers).
        """
        if offset < self._next_offset:
            return False
        self._next_offset = offset + 1
        while self._again and self._again[0] < offset:  # the log has lost it
            self._again.popleft()
        if self._again and self._again[0] == offset:
            self._again.popleft()
        elif offset < self._done_to:
            return False
        self._open[offset] = None
        return True

    def done(self, offset: int) -> None:
        """Note that the outcome of a taken record goes into the next commit."""
        del self._open[offset]
        self._done_to = max(self._done_to, offset + 1)

    def position(self) -> Position:
        """Return what to commit."""
        watermark = self.watermark
        if watermark >= self._done_to:
            return Position.up_to(watermark)
        open_below = [offset for offset in self._not_done() if offset < self._done_to]
        return Position(offset=watermark, metadata=_encode([*open_below, self._done_to]))

    def undone_below(self, offset: int) -> int:
        """Return how many offsets below this one were not done, whether taken or never."""
        first_unknown = max(self._next_offset, self._done_to)
        return sum(o < offset for o in self._not_done()) + max(0, offset - first_unknown)

    def _not_done(self) -> Iterator[int]:
        return chain(self._open, self._again)


def undone_below(position: Position, offset: int) -> int:
    """Return how many offsets from a position on, and below an offset, have no outcome."""
    try:
        tracker = OffsetTracker.from_position(position)
    except ForeignMetadata:
        return max(0, offset - position.offset)
    return tracker.undone_below(offset)


def _encode(offsets: list[int]) -> str:
    """Pack rising offsets as their distances, the first one being known from the position."""
    packed = bytearray()
    for lower, higher in pairwise(offsets):
        distance = higher - lower
        while distance >= _STEP:  # LEB128: seven bits a byte, and whether there are more
            packed.append(distance % _STEP + _STEP)
            distance //= _STEP
        packed.append(distance)
    return _FORMAT + b64encode(_checksum(offsets[0], packed) + packed).decode()


def _decode(position: Position) -> list[int]:
    """Return the offsets that were encoded, of which the last one is where nothing is done yet."""
    if position.metadata.startswith(_FIRST_FORMAT):
        return _decode_bitmap(position.offset, _unpack(position))
    offsets, distance, shift = [position.offset], 0, 0
    packed = _unpack(position)
    if packed and packed[-1] >= _STEP:
        raise ForeignMetadata("the committed metadata ends within a number")
    for byte in packed:
        distance += (byte % _STEP) << shift
        shift += 7
        if byte < _STEP:
            offsets.append(offsets[-1] + distance)
            distance, shift = 0, 0
    return offsets


def _decode_bitmap(watermark: int, packed: bytes) -> list[int]:
    """Return what is not done below the highest that is, and the offset above that one."""
    done = int.from_bytes(packed, "little")
    span = done.bit_length()
    return [*(watermark + i for i in range(span) if not done >> i & 1), watermark + span]


def _unpack(position: Position) -> bytes:
    """Return the bytes below the format's name, once their checksum holds."""
    if not position.is_ours or len(position.metadata) > MAX_METADATA_BYTES:
        raise ForeignMetadata("the committed metadata was not written by this program")
    try:
        packed = b64decode(position.metadata[len(_FORMAT) :], validate=True)
    except binascii.Error as exc:
        raise ForeignMetadata("the committed metadata is not base64") from exc
    checksum, packed = packed[:_CHECKSUM_BYTES], packed[_CHECKSUM_BYTES:]
    if checksum != _checksum(position.offset, packed):
        raise ForeignMetadata("the committed metadata does not match its checksum")
    return packed


def _checksum(watermark: int, packed: bytes | bytearray) -> bytes:
    """Cover the offset too: distances beside an offset that somebody reset mean nothing."""
    return zlib.crc32(packed, watermark & 0xFFFFFFFF).to_bytes(_CHECKSUM_BYTES, "little")
