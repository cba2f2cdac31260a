"""A group's committed position and what its metadata say. Pure.

The committed offset is the low watermark: below it everything is done. What is done above it
travels in the commit's metadata. Few records are open and many are done, so the open ones are what
is written down.
"""

import binascii
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MAX_METADATA_BYTES: Final = 4096  # the broker's offset.metadata.max.bytes, by default
STEP: Final = 128  # a distance below this is one byte
_FORMAT: Final = "il2:"
_FIRST_FORMAT: Final = "il1:"  # a bitmap of what is done; read, no longer written
_CHECKSUM_BYTES: Final = 4
# Base64 turns three bytes into four characters.
_MAX_PACKED_BYTES: Final = (MAX_METADATA_BYTES - len(_FORMAT)) // 4 * 3 - _CHECKSUM_BYTES
# One open record lets the span reach 128 offsets a byte; every further one costs one byte.
MAX_SPAN: Final = STEP * (_MAX_PACKED_BYTES - 1)
MAX_OPEN: Final = 3000  # they fit; 65 bytes remain for two-byte distances


class ForeignMetadata(ValueError):
    """A commit's metadata that this version did not write, or that was damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """The records of a partition that have no outcome: `open`, and all from `done_to` on."""

    open: tuple[int, ...]
    done_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What is committed: the next offset to read, and what is done above it, encoded."""

    offset: int
    metadata: str = ""

    @classmethod
    def up_to(cls, offset: int) -> "Position":
        """Return the position below which everything is done, and above which nothing is."""
        return cls(offset=offset, metadata=_encode([offset]))

    @classmethod
    def of(cls, undone: Undone) -> "Position":
        """Return the position that says what is not done."""
        if not undone.open:
            return cls.up_to(undone.done_to)
        return cls(offset=undone.open[0], metadata=_encode([*undone.open, undone.done_to]))

    @property
    def is_ours(self) -> bool:
        """Whether a worker committed it; one that a tool set has no metadata of ours."""
        return self.metadata.startswith((_FORMAT, _FIRST_FORMAT))

    def undone(self) -> Undone:
        """Return what has no outcome, as the metadata say.

        Raises:
            ForeignMetadata: the metadata is not ours; nothing above the offset has an outcome that
                this format could have recorded.
        """
        if not self.metadata:
            return Undone(open=(), done_to=self.offset)
        *open_, done_to = _decode(self)
        return Undone(open=tuple(open_), done_to=done_to)


def undone_at(offset: int, metadata: str) -> Undone:
    """Return what has no outcome by a commit; above one that a tool has set nothing is done."""
    try:
        return Position(offset=offset, metadata=metadata).undone()
    except ForeignMetadata:
        return Undone(open=(), done_to=offset)


def _encode(offsets: list[int]) -> str:
    """Pack rising offsets as their distances, the first one being known from the position."""
    packed = bytearray()
    for lower, higher in pairwise(offsets):
        distance = higher - lower
        while distance >= STEP:  # LEB128: seven bits a byte, and whether there are more
            packed.append(distance % STEP + STEP)
            distance //= STEP
        packed.append(distance)
    return _FORMAT + b64encode(_checksum(offsets[0], packed) + packed).decode()


def _decode(position: Position) -> list[int]:
    """Return the offsets that were encoded, of which the last one is where nothing is done yet."""
    if position.metadata.startswith(_FIRST_FORMAT):
        return _decode_bitmap(position.offset, _unpack(position))
    offsets, distance, shift = [position.offset], 0, 0
    packed = _unpack(position)
    if packed and packed[-1] >= STEP:
        raise ForeignMetadata("the committed metadata ends within a number")
    for byte in packed:
        distance += (byte % STEP) << shift
        shift += 7
        if byte < STEP:
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
