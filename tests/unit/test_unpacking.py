"""Compressed batches are unpacked within a bound; beyond it a batch is one record that says why."""

import gzip
import tracemalloc
from typing import Any

import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchPy

from imagelane.kafka import header_names, unpacking
from imagelane.kafka.header_names import Unread, tolerate_header_names
from imagelane.kafka.unpacking import MAX_UNPACKED_BYTES
from schemas import Code, Freshness, Record, Refused, TimestampType, Verifier, admit
from tests.fakes import INGEST, KEYS, NOW

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@pytest.fixture(autouse=True)
def bounded() -> None:
    """As every reader of this project does at its start."""
    tolerate_header_names()


def _batch(kind: str, values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS[kind],
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=2**30,
    )
    for offset, value in enumerate(values):
        builder.append(offset, NOW * 1000, None, value, [])
    return bytes(builder.build())


def _read(data: bytes) -> list[Any]:
    records, read = header_names._Records(data), []
    while records.has_next():
        read += list(records.next_batch())
    return read


@pytest.mark.parametrize("kind", CODECS)
def test_batch_within_the_bound_is_read(kind: str) -> None:
    """Whatever the codec, as it was sent."""
    values = [b"%d" % n * 1000 for n in range(200)]
    assert [record.value for record in _read(_batch(kind, values))] == values


@pytest.mark.parametrize("kind", CODECS)
def test_bomb_is_one_record_and_takes_little_memory(kind: str) -> None:
    """It stands at the last offset of the batch, so that a reader goes on behind it."""
    data = _batch(kind, [b"\0" * (MAX_UNPACKED_BYTES // 8)] * 64)
    tracemalloc.start()
    try:
        [record] = _read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert record.offset == 63
    assert isinstance(record.value, Unread)
    assert str(MAX_UNPACKED_BYTES) in record.value.reason
    assert peak < 4 * MAX_UNPACKED_BYTES


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("broken", ["cut", "noise"])
def test_broken_batch_is_one_record(kind: str, broken: str) -> None:
    """A stranger chose the bytes: no error of a codec may end the reader."""
    data = bytearray(_batch(kind, [b"a" * 5000, b"b" * 5000]))
    head = _DefaultRecordBatchPy.HEADER_STRUCT.size
    body = bytes(data[head:])
    body = body[: len(body) // 2] if broken == "cut" else b"\x07" * len(body)
    data[head:] = body
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    [record] = _read(bytes(data))
    assert (record.offset, record.value) == (1, b"")
    assert "cannot be unpacked" in record.value.reason


def test_members_of_gzip_share_the_bound() -> None:
    """A file of many members is no way around it."""
    bomb = gzip.compress(b"\0" * (MAX_UNPACKED_BYTES // 2)) * 3
    with pytest.raises(Exception, match="unpacks to more"):
        unpacking.bound_unpacking.__globals__["_gzip"](bomb)


def test_other_users_of_the_codecs_are_left_alone() -> None:
    """Only what is read from a broker is bounded."""
    assert codec.gzip_decode(codec.gzip_encode(b"a")) == b"a"


def test_record_that_stands_for_a_batch_is_too_large() -> None:
    """Refused before anything of it is looked at, and no proof of our secret."""
    record = Record(
        topic=INGEST,
        partition=0,
        offset=0,
        timestamp_ms=NOW * 1000,
        timestamp_type=TimestampType.APPEND,
        key=None,
        value=b"",
        headers=(),
        unread="its batch unpacks to more than 8388608 bytes",
    )
    with pytest.raises(Refused) as refused:
        admit(record, verifier=Verifier(KEYS, INGEST), freshness=Freshness(), now=NOW)
    assert refused.value.code is Code.TOO_LARGE
