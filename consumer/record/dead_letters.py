"""The content of a dead letter: the whole record, or its signature headers and hashes. Pure.

Anybody who can write to the ingest topic can write large refused records, so a rate limits their
bytes in the dead letters.
"""

import hashlib
from typing import Final

import orjson

from consumer.outcome import DeadLetterContent
from imagelane.token_bucket import TokenBucket
from schemas import Headers, Record, headers
from schemas.admission import MAX_HEADERS

# Kafka's default limit of a batch is 1 MiB and 12 bytes; our dead letter headers need the rest.
MAX_DEAD_LETTER_BYTES: Final = 1_000_000
MAX_SIGNATURE_HEADER_BYTES: Final = 1024
# A batch of one record adds 61 bytes and the record's own fields; a header two lengths of at most
# 5 bytes each.
_BATCH_BYTES: Final = 100
_HEADER_BYTES: Final = 10
_SIGNATURE_HEADERS: Final = (headers.SIG_ID, headers.SIG_TS, headers.SIG)
BURST_SECONDS: Final = 60


class DeadLetterRate(TokenBucket):
    """Limits the bytes of refused records kept whole; the burst is a minute's worth."""

    def __init__(self, bytes_per_second: float) -> None:
        super().__init__(bytes_per_second, burst=bytes_per_second * BURST_SECONDS)


def content_of(record: Record) -> DeadLetterContent:
    """Return the whole record, or its remains if the topic cannot take it."""
    own = [header for header in record.headers if not headers.is_dead_letter_header(header[0])]
    if _byte_length(record.key, record.value, own) > MAX_DEAD_LETTER_BYTES:
        return hashes_of(record)
    return DeadLetterContent(key=record.key, value=record.value, headers=own, truncated=False)


def content_within_rate(record: Record, rate: DeadLetterRate, now: float) -> DeadLetterContent:
    """Return the whole record, or its remains if it is above the rate or too large."""
    if len(record.headers) <= MAX_HEADERS:  # more would take long to look through
        content = content_of(record)
        if content.truncated or rate.take(
            _byte_length(content.key, content.value, content.headers), now
        ):
            return content
    content = hashes_of(record)
    rate.spend(_byte_length(content.key, content.value, content.headers))
    return content


def hashes_of(record: Record) -> DeadLetterContent:
    """Return the first header of each signature name, cut, and lengths and hashes of the rest."""
    found: dict[str, bytes] = {}
    for name, value in record.headers[:MAX_HEADERS]:
        if name in _SIGNATURE_HEADERS:
            found.setdefault(name, (value or b"")[:MAX_SIGNATURE_HEADER_BYTES])
    facts = {
        "byte_length": None if record.value is None else len(record.value),
        "sha256": _sha256(record.value),
        "key_byte_length": None if record.key is None else len(record.key),
        "key_sha256": _sha256(record.key),
    }
    return DeadLetterContent(
        key=None,
        value=orjson.dumps(facts),
        headers=list(found.items()),
        truncated=True,
    )


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _byte_length(key: bytes | None, value: bytes | None, record_headers: Headers) -> int:
    """Return an upper bound of the record's length in an uncompressed batch of its own."""
    # A header's value may be None, in spite of its type.
    fields = sum(len(n.encode()) + len(v or b"") + _HEADER_BYTES for n, v in record_headers)
    return len(key or b"") + len(value or b"") + fields + _BATCH_BYTES
