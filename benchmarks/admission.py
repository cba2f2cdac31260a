"""What admission costs: CPU microseconds for one record on one core.

`python -m benchmarks.admission` prints a table and the promise, and exits with 1 when it is broken.
`verify + parse` is the signature and the message; `admit` adds the size, the freshness and the id.
The second table is forgeries beside good records of equal size: admission, and what is kept of it.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from consumer.outcome import DeadLetterContent
from consumer.record.dead_letters import DeadLetterRate, content_within_rate
from schemas import (
    Freshness,
    KeyRing,
    Record,
    Refused,
    Request,
    Signer,
    TimestampType,
    Verifier,
    admit,
    decode_request,
)
from schemas.codec import MAX_VALUE_BYTES

PROMISED_MICROSECONDS: Final = 60
PROMISED_RATIO: Final = 2
ROUNDS: Final = 15
ROUND_SECONDS: Final = 0.05

_TOPIC: Final = "image.ingest"
_ID: Final = "01JABCDEF0123456789ABCDEFG"
_SIGNED_AT: Final = 1_764_000_000
_KEYS: Final = KeyRing(current_id="k1", secrets={"k1": b"a secret for the benchmark, 32 B"})
_VERIFIER: Final = Verifier(_KEYS, _TOPIC)
_FRESHNESS: Final = Freshness()
_NO_RATE: Final = DeadLetterRate(0)


def main() -> int:
    """Print the table; return 0 when the promise holds, else 1."""
    print(f"CPU microseconds per record, one core, median of {ROUNDS} rounds")
    print(f"{'record':<28}{'bytes':>8}{'verify':>9}{'parse':>9}{'verify + parse':>16}{'admit':>9}")
    typical = _measure("typical", _value(uri_chars=60, metadata_bytes=24))
    _measure("2 KB of metadata", _value(uri_chars=60, metadata_bytes=2048))
    _measure("256 KiB, the most allowed", _largest_value())
    met = typical <= PROMISED_MICROSECONDS
    print(
        f"promise: verify + parse of a typical record in at most {PROMISED_MICROSECONDS} µs; "
        f"measured {typical:.1f} µs, {typical / PROMISED_MICROSECONDS:.2f} of it: "
        f"{'met' if met else 'NOT met'}"
    )
    return 0 if met and _forgeries() else 1


def _forgeries() -> bool:
    """Print what forgeries cost; return whether each keeps the promise."""
    print(f"{'forgery':<40}{'bytes':>9}{'µs':>9}{'good':>9}{'ratio':>7}")
    ratios = [_compare(name, record) for name, record in _forged().items()]
    met = max(ratios) <= PROMISED_RATIO
    print(
        f"promise: a forgery costs at most {PROMISED_RATIO} times a good record of equal size; "
        f"measured {max(ratios):.2f}: {'met' if met else 'NOT met'}"
    )
    return met


def _compare(name: str, forged: Record) -> float:
    size = len(forged.key or b"") + len(forged.value or b"")
    size += sum(len(header) + len(value) for header, value in forged.headers)
    value = _value(uri_chars=60, metadata_bytes=24)
    good = _record(value, key=b"k" * max(0, size - len(value) - 120))
    refused = _microseconds(partial(_refuse, forged))
    admitted = _microseconds(partial(_admit, good))
    ratio = refused / admitted
    print(f"{name:<40}{size:>9}{refused:>9.1f}{admitted:>9.1f}{ratio:>7.2f}")
    return ratio


def _forged() -> dict[str, Record]:
    """Return forgeries of each shape that costs, of up to a megabyte."""
    good = _record(_value(uri_chars=60, metadata_bytes=24))
    bad = [*good.headers[:2], ("sig", b"v1.k1." + b"0" * 64)]
    large = b"x" * 900_000
    return {
        "unsigned": replace(good, headers=[]),
        "wrong mac": replace(good, headers=bad),
        "wrong mac, a key of 900 kB": replace(good, headers=bad, key=large),
        "a value of 900 kB": replace(good, headers=bad, value=large),
        "a header of 900 kB": replace(good, headers=[*bad, ("h", large)]),
        "170,000 headers": replace(good, headers=[*bad, *[("a", b"abc")] * 170_000]),
        "128 headers": replace(good, headers=[*bad, *[("a", b"abc")] * 125]),
        "a signature of 900 kB of spaces": replace(
            good, headers=[*bad[:2], ("sig", b" " * 900_000)]
        ),
    }


def _refuse(record: Record) -> DeadLetterContent:
    try:
        _admit(record)
    except Refused:
        return content_within_rate(record, _NO_RATE, _SIGNED_AT)
    raise AssertionError("admitted")


def _measure(name: str, value: bytes) -> float:
    """Print one row of the table; return the microseconds of verify + parse."""
    record = _record(value)
    verify = _microseconds(partial(_verify, record))
    parse = _microseconds(partial(decode_request, value))
    both = _microseconds(partial(_verify_and_parse, record))
    whole = _microseconds(partial(_admit, record))
    print(f"{name:<28}{len(value):>8}{verify:>9.1f}{parse:>9.1f}{both:>16.1f}{whole:>9.1f}")
    return both


def _verify(record: Record) -> None:
    _VERIFIER.verify(record.headers, record.key, record.value)


def _verify_and_parse(record: Record) -> Request:
    _VERIFIER.verify(record.headers, record.key, record.value)
    return decode_request(record.value or b"")


def _admit(record: Record) -> Request:
    return admit(record, verifier=_VERIFIER, freshness=_FRESHNESS, now=_SIGNED_AT)


def _microseconds(call: Callable[[], object]) -> float:
    """Return the median CPU time of one call; CPU time, so that a busy machine does not count."""
    started = time.process_time()
    calls = 0
    while time.process_time() - started < ROUND_SECONDS:
        call()
        calls += 1
    rounds = [_seconds(call, calls) for _ in range(ROUNDS)]
    return statistics.median(rounds) / calls * 1e6


def _seconds(call: Callable[[], object], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - started


def _value(*, uri_chars: int, metadata_bytes: int, space_bytes: int = 0) -> bytes:
    uri = "https://img.example/".ljust(uri_chars, "a")
    return (
        f'{{"version":1,"id":"{_ID}","image":{{"uri":"{uri}"}},{" " * space_bytes}'
        f'"tasks":["embed","caption"],"metadata":{_metadata(metadata_bytes)}}}'
    ).encode()


def _metadata(byte_length: int) -> str:
    members: list[str] = []
    while sum(map(len, members)) + len(members) + 16 < byte_length:
        members.append(f'"field{len(members):03}":{{"n":{len(members)},"on":true}}')
    return "{" + ",".join(members) + "}"


def _largest_value() -> bytes:
    limits = {"uri_chars": 8192, "metadata_bytes": 16 * 1024}
    return _value(**limits, space_bytes=MAX_VALUE_BYTES - len(_value(**limits)))


def _record(value: bytes, key: bytes = b"asset-42") -> Record:
    signer = Signer(_KEYS, _TOPIC)
    headers = signer.sign(id=_ID, timestamp=_SIGNED_AT, key=key, value=value)
    return Record(
        topic=_TOPIC,
        partition=0,
        offset=0,
        timestamp_ms=_SIGNED_AT * 1000,
        timestamp_type=TimestampType.APPEND,
        key=key,
        value=value,
        headers=headers,
    )


if __name__ == "__main__":
    sys.exit(main())
