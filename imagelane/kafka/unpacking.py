"""Compressed batches, unpacked within a bound before their records are read.

On a topic that keeps the producers' codec a batch of a megabyte can unpack to a gigabyte, and its
sender needs no secret. aiokafka has no limit, so functions that stop at `MAX_UNPACKED_BYTES`
replace its own, and `header_names` reads a larger batch as one record.
"""

import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

from aiokafka import codec
from aiokafka.record import default_records, legacy_records

cramjam: Any
try:
    import cramjam
except ImportError:  # aiokafka then reads gzip alone, and names the missing codec
    cramjam = None

MAX_UNPACKED_BYTES: Final = 8 * 2**20
_GZIP: Final = 31  # zlib's window of 32 KiB, with gzip's header
_XERIAL_HEADER_BYTES: Final = 16


class CannotUnpack(Exception):
    """A batch that is broken, or too large once unpacked."""


def bound_unpacking() -> None:
    """Replace aiokafka's functions in this process; aiokafka has no setting for it."""
    bounded = {
        "gzip_decode": _gzip,
        "snappy_decode": _snappy,
        "lz4_decode": lambda data: _into(cramjam.lz4.decompress_into, data),
        "zstd_decode": lambda data: _into(cramjam.zstd.decompress_into, data),
    }
    # The compiled modules look their functions up by name at each call, as the plain ones do.
    compiled = (default_records.DefaultRecordBatch, legacy_records.LegacyRecordBatch)
    for module in (
        default_records,
        legacy_records,
        *(sys.modules[type_.__module__] for type_ in compiled),
    ):
        for name, function in bounded.items():
            if hasattr(module, name):
                setattr(module, name, _translated(function))


def _translated(unpack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def unpacked(data: Any) -> bytes:
        try:
            return unpack(data)
        except CannotUnpack:
            raise
        except Exception as exc:  # the bytes are untrusted, and each codec has its own errors
            raise CannotUnpack(f"its batch cannot be unpacked ({type(exc).__name__})") from exc

    return unpacked


def _gzip(data: Any) -> bytes:
    parts: list[bytes] = []
    left, rest = MAX_UNPACKED_BYTES, bytes(data)
    while rest:  # one member after the other
        unpacker = zlib.decompressobj(_GZIP)
        part = unpacker.decompress(rest, left + 1)
        left -= len(part)
        if left < 0:
            raise _too_large()
        if not unpacker.eof:
            raise CannotUnpack("its batch cannot be unpacked (it ends too early)")
        parts.append(part)
        rest = unpacker.unused_data
    return b"".join(parts)


def _snappy(data: bytes) -> bytes:
    blocks, left = [], MAX_UNPACKED_BYTES
    for block in _snappy_blocks(data):
        left -= cramjam.snappy.decompress_raw_len(block)
        if left < 0:
            raise _too_large()
        blocks.append(bytes(cramjam.snappy.decompress_raw(block)))
    return b"".join(blocks)


def _snappy_blocks(data: bytes) -> list[bytes]:
    if not codec._detect_xerial_stream(data):
        return [data]
    blocks, at = [], _XERIAL_HEADER_BYTES
    while at < len(data):
        (length,) = struct.unpack_from("!i", data, at)
        if not 0 < length <= len(data) - at - 4:
            raise CannotUnpack("its batch cannot be unpacked (a block is longer than the batch)")
        blocks.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return blocks


def _into(unpack_into: Callable[[bytes, bytearray], int], data: bytes) -> bytes:
    target = bytearray(MAX_UNPACKED_BYTES)  # a page takes memory once it is written
    try:
        length = unpack_into(data, target)
    except cramjam.DecompressionError as exc:
        if "write whole buffer" in str(exc):
            raise _too_large() from exc
        raise
    return bytes(memoryview(target)[:length])


def _too_large() -> CannotUnpack:
    return CannotUnpack(f"its batch unpacks to more than {MAX_UNPACKED_BYTES} bytes")
