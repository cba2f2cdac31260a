"""A group's committed position and its metadata. Pure.

The committed offset is the low watermark: every record below it is done. Records above it may be
done as well. The metadata list the open ones among these, for few are open and many are done.
"""

import binascii
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MAX_METADATA_BYTES: Final = 4096  # the broker's offset.metadata.max.bytes, by default
STEP: Final = 128  # a distance below this takes one byte
_FORMAT: Final = "il2:"
_FIRST_FORMAT: Final = "il1:"  # a bitmap of the done records; read, no longer written
_CHECKSUM_BYTES: Final = 4
# Base64 turns three bytes into four characters.
_MAX_PACKED_BYTES: Final = (MAX_METADATA_BYTES - len(_FORMAT)) // 4 * 3 - _CHECKSUM_BYTES
# One open record lets the span reach 128 offsets a byte; every further one costs one byte.
MAX_SPAN: Final = STEP * (_MAX_PACKED_BYTES - 1)
MAX_OPEN: Final = 3000  # they fit; 65 bytes remain for two-byte distances


class ForeignMetadata(ValueError):
    """A commit's metadata that imagelane did not write, or that are damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """The records of a partition without an outcome: `open`, and all from `done_to` on."""

    open: tuple[int, ...]
    done_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A committed position: the next offset to read, and the done records above it, encoded."""

    offset: int
    metadata: str = ""

    @classmethod
    def up_to(cls, offset: int) -> "Position":
        """Return the position of a partition with all records below `offset` done, and no other."""
        return cls(offset=offset, metadata=_encode([offset]))

    @classmethod
    def of(cls, undone: Undone) -> "Position":
        """Return the position that encodes `undone`."""
        if not undone.open:
            return cls.up_to(undone.done_to)
        return cls(offset=undone.open[0], metadata=_encode([*undone.open, undone.done_to]))

    @property
    def is_ours(self) -> bool:
        """Whether a worker committed it; a tool's position has no metadata of ours."""
        return self.metadata.startswith((_FORMAT, _FIRST_FORMAT))

    def undone(self) -> Undone:
        """Return the records without an outcome.

        Raises:
            ForeignMetadata: the metadata are not ours, so they say nothing about the records.
        """
        if not self.metadata:
            return Undone(open=(), done_to=self.offset)
        *open_, done_to = _decode(self)
        return Undone(open=tuple(open_), done_to=done_to)


def undone_in_log(position: Position | None, start: int, end: int) -> Undone:
    """Return the undone records of a log from `start` to `end`.

    No record above a tool's position is done, and none at all without a position.
    """
    undone = Undone(open=(), done_to=start)
    if position is not None:
        try:
            undone = position.undone()
        except ForeignMetadata:
            undone = Undone(open=(), done_to=position.offset)
    return Undone(
        open=tuple(offset for offset in undone.open if start <= offset < end),
        done_to=min(end, max(start, undone.done_to)),
    )


def _encode(offsets: list[int]) -> str:
    """Pack rising offsets as their distances; the position has the first one."""
    packed = bytearray()
    for lower, higher in pairwise(offsets):
        distance = higher - lower
        while distance >= STEP:  # LEB128: seven bits a byte, and a bit for "more follow"
            packed.append(distance % STEP + STEP)
            distance //= STEP
        packed.append(distance)
    return _FORMAT + b64encode(_checksum(offsets[0], packed) + packed).decode()


def _decode(position: Position) -> list[int]:
    """Return the encoded offsets: the open ones, then `done_to`."""
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
    """Return the open offsets below the highest done one, then the offset above that one."""
    done = int.from_bytes(packed, "little")
    span = done.bit_length()
    return [*(watermark + i for i in range(span) if not done >> i & 1), watermark + span]


def _unpack(position: Position) -> bytes:
    """Return the bytes behind the format's name and the checksum, if that is right."""
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
    """Cover the offset, too: with an offset that a tool reset, the distances mean nothing."""
    return zlib.crc32(packed, watermark & 0xFFFFFFFF).to_bytes(_CHECKSUM_BYTES, "little")
