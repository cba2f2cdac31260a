"""Signed records for tests: one secret, one topic, one time."""

from dataclasses import replace
from typing import Any

from schemas import Freshness, Headers, KeyRing, Record, Request, Signer, TimestampType, Verifier
from schemas import admit as admit_record

TOPIC = "image.ingest"
SECRET = b"correct horse battery staple 0123456789"
KEYS = KeyRing(current_id="k1", secrets={"k1": SECRET})
SIGNED_AT = 1_764_000_000
VALUE = b'{"version":1,"id":"01JABC","image":{"uri":"file:///a"}}'
VERIFIER = Verifier(KEYS, TOPIC)


def signed_headers(
    *,
    id: str = "01JABC",
    timestamp: int = SIGNED_AT,
    key: bytes | None = b"asset-42",
    value: bytes | None = VALUE,
) -> list[tuple[str, bytes]]:
    return Signer(KEYS, TOPIC).sign(id=id, timestamp=timestamp, key=key, value=value)


def record(*, headers: Headers | None = None, **changes: Any) -> Record:
    """Return a good record with `changes`, signed as it then stands unless `headers` are given."""
    unsigned = replace(
        Record(
            topic=TOPIC,
            partition=0,
            offset=7,
            timestamp_ms=SIGNED_AT * 1000,
            timestamp_type=TimestampType.APPEND,
            key=b"asset-42",
            value=VALUE,
            headers=(),
        ),
        **changes,
    )
    if headers is None:
        headers = signed_headers(key=unsigned.key, value=unsigned.value)
    return replace(unsigned, headers=headers)


def admit(record: Record, *, now: float = SIGNED_AT) -> Request:
    return admit_record(record, verifier=VERIFIER, freshness=Freshness(), now=now)
