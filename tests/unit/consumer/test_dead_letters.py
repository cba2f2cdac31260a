"""What a dead letter keeps: the whole record within a rate of bytes, its remains above it."""

import hashlib

import orjson
from hypothesis import given
from hypothesis import strategies as st

from consumer.record.dead_letters import (
    BURST_SECONDS,
    MAX_SIGNATURE_HEADER_BYTES,
    DeadLetterRate,
    content_of,
    content_within_rate,
    hashes_of,
)
from schemas import ImageReference, Request
from schemas.admission import MAX_HEADERS
from tests.fakes import NOW, signed_record

REQUEST = Request(id="a", image=ImageReference(uri="file:///a.png"))
NOTHING = DeadLetterRate(0)


def test_record_within_the_rate_is_kept_byte_for_byte() -> None:
    """Key, value and every header."""
    record = signed_record(REQUEST, key=b"k", headers=[("a", b"1"), ("a", b"2")])
    content = content_within_rate(record, DeadLetterRate(10_000), NOW)
    assert (content.key, content.value, content.headers) == (
        record.key,
        record.value,
        record.headers,
    )
    assert not content.truncated


def test_remains_identify_the_record() -> None:
    """Lengths and hashes of key and value, and what was said to be its signature."""
    record = signed_record(REQUEST, key=b"key")
    content = content_within_rate(record, NOTHING, NOW)
    assert content.truncated
    assert content.key is None
    assert content.headers == record.headers
    assert orjson.loads(content.value) == {
        "byte_length": len(record.value),
        "sha256": hashlib.sha256(record.value).hexdigest(),
        "key_byte_length": 3,
        "key_sha256": hashlib.sha256(b"key").hexdigest(),
    }


def test_remains_of_nothing_say_so() -> None:
    """Neither key nor value: null is not empty."""
    content = hashes_of(signed_record(REQUEST, value=None))
    assert set(orjson.loads(content.value).values()) == {None}


def test_remains_are_small_whatever_the_record_is() -> None:
    """Signature headers are cut, one of each name; other headers are not kept."""
    big = b"x" * 300_000
    headers = [("sig", big), ("sig", big), ("sig-id", big), ("sig-ts", None), ("other", big)]
    content = hashes_of(signed_record(REQUEST, key=big, value=big, headers=headers))
    assert [name for name, _ in content.headers] == ["sig", "sig-id", "sig-ts"]
    assert max(len(value) for _, value in content.headers) == MAX_SIGNATURE_HEADER_BYTES
    assert len(content.value) < 300


def test_record_with_too_many_headers_is_never_kept_whole() -> None:
    """To look through them, and to write them again, would cost more than all the rest."""
    headers = [*signed_record(REQUEST).headers, *[("h", b"1")] * MAX_HEADERS]
    content = content_within_rate(
        signed_record(REQUEST, headers=headers), DeadLetterRate(2**40), NOW
    )
    assert content.truncated
    assert [name for name, _ in content.headers] == ["sig-id", "sig-ts", "sig"]


def test_record_of_somebody_with_the_secret_is_kept_whatever_the_rate() -> None:
    """The rate is for refusals: a failed image's dead letter is the record."""
    assert not content_of(signed_record(REQUEST)).truncated


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 200_000)), min_size=1, max_size=60))
def test_bytes_are_within_the_rate(steps: list[tuple[float, int]]) -> None:
    """Over any stretch of time: a minute's worth at once, and then the rate."""
    rate, now, taken = DeadLetterRate(1000), float(NOW), 0
    for pause_seconds, byte_length in steps:
        now += pause_seconds
        if rate.take(byte_length, now):
            taken += byte_length
        assert taken <= 1000 * (BURST_SECONDS + now - NOW) + 1


def test_clock_that_jumps_back_fills_nothing_and_takes_nothing() -> None:
    """Unix time may be set."""
    rate = DeadLetterRate(100)
    assert rate.take(6000, NOW)
    assert not rate.take(100, NOW - 1000)
    assert not rate.take(100, NOW - 1000)
    assert rate.take(100, NOW - 999)


def test_truncated_letters_count_too() -> None:
    """What is written in any case leaves less for whole records."""
    rate = DeadLetterRate(10)
    rate.spend(10_000)
    assert not rate.take(1, NOW)
    assert rate.take(10, NOW + 1)
