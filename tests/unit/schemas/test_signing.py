"""Signing and verifying: nothing that the signature covers can change unseen."""

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import Code, Headers, KeyRing, Refused, Signed, Signer, Verifier
from tests import strategies
from tests.effort import effort
from tests.unit.schemas.records import (
    KEYS,
    SECRET,
    SIGNED_AT,
    TOPIC,
    VALUE,
    VERIFIER,
    signed_headers,
)

HEX = b"0" * 64
KEY = b"asset-42"


def refusal(
    headers: Headers,
    *,
    key: bytes | None = KEY,
    value: bytes | None = VALUE,
    verifier: Verifier = VERIFIER,
) -> Refused:
    with pytest.raises(Refused) as caught:
        verifier.verify(headers, key, value)
    return caught.value


def with_header(name: str, value: bytes | None) -> Headers:
    """Return good headers with one of another value."""
    return [(n, value if n == name else v) for n, v in signed_headers()]


def flip(data: bytes, bit: int) -> bytes:
    bit %= len(data) * 8
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(
    strategies.secrets,
    strategies.key_ids,
    strategies.words,
    strategies.message_ids,
    strategies.timestamps,
    strategies.bytes_or_null,
    strategies.bytes_or_null,
)
def test_what_is_signed_verifies(
    secret: bytes,
    key_id: str,
    audience: str,
    id: str,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
) -> None:
    """Any key and value, null and empty included, verify for the topic they were signed for."""
    keys = KeyRing(current_id=key_id, secrets={key_id: secret})

    headers = Signer(keys, audience).sign(id=id, timestamp=timestamp, key=key, value=value)

    assert Verifier(keys, audience).verify(headers, key, value) == Signed(
        id=id, timestamp=timestamp
    )


@given(st.binary(min_size=1, max_size=64), st.integers(min_value=0))
def test_flipped_bit_of_the_value_is_refused(value: bytes, bit: int) -> None:
    """The raw bytes of the value are covered."""
    headers = signed_headers(value=value)

    assert refusal(headers, value=flip(value, bit)).code is Code.BAD_SIGNATURE


@given(st.binary(min_size=1, max_size=64), st.integers(min_value=0))
def test_flipped_bit_of_the_key_is_refused(key: bytes, bit: int) -> None:
    """The key is covered: it picks the partition."""
    headers = signed_headers(key=key)

    assert refusal(headers, key=flip(key, bit)).code is Code.BAD_SIGNATURE


@settings(max_examples=effort(300))
@given(st.sampled_from(["sig-id", "sig-ts", "sig"]), st.integers(0, 8 * 71))
def test_flipped_bit_of_a_header_is_refused(name: str, bit: int) -> None:
    """Id, time, version, key id and mac are covered, each bit of them."""
    original = dict(signed_headers())[name]

    refused = refusal(with_header(name, flip(original, bit)))

    # A flip in the key id may name another key, and only there.
    assert refused.code in {Code.BAD_SIGNATURE, Code.UNKNOWN_KEY}
    assert refused.code is Code.BAD_SIGNATURE or name == "sig"


def test_flipped_bit_of_a_key_id_that_is_known_too_is_refused() -> None:
    """The key id is covered even where two ids have the same secret."""
    keys = KeyRing(current_id="k1", secrets={"k1": SECRET, "k0": SECRET})
    headers = with_header("sig", dict(signed_headers())["sig"].replace(b"k1", b"k0"))

    assert refusal(headers, verifier=Verifier(keys, TOPIC)).code is Code.BAD_SIGNATURE


@given(st.integers(min_value=0))
def test_signature_is_worth_nothing_for_another_topic(bit: int) -> None:
    """The topic is covered, each bit of its name."""
    other = Verifier(KEYS, flip(TOPIC.encode(), bit).decode("latin-1"))

    assert refusal(signed_headers(), verifier=other).code is Code.BAD_SIGNATURE


@given(st.integers(min_value=0))
def test_flipped_bit_of_the_secret_is_refused(bit: int) -> None:
    """Another secret under the same id is `bad_signature`, as a forgery is."""
    other = KeyRing(current_id="k1", secrets={"k1": flip(SECRET, bit)})

    assert refusal(signed_headers(), verifier=Verifier(other, TOPIC)).code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("key", "value"), [(None, VALUE), (b"", VALUE), (KEY, None), (KEY, b""), (VALUE, KEY)]
)
def test_null_empty_and_exchanged_are_told_apart(key: bytes | None, value: bytes | None) -> None:
    """A null key is not an empty one, and a key is not a value."""
    assert refusal(signed_headers(), key=key, value=value).code is Code.BAD_SIGNATURE


def test_dash_is_not_null() -> None:
    """The mark for null in the string to sign cannot be sent as a key."""
    assert refusal(signed_headers(key=None), key=b"-").code is Code.BAD_SIGNATURE


@given(st.permutations([*signed_headers(), ("traceparent", b"00-1"), ("content-type", b"x")]))
def test_order_of_headers_and_other_headers_do_not_matter(headers: Headers) -> None:
    """Only the three are looked at, wherever they stand."""
    assert VERIFIER.verify(headers, KEY, VALUE) == Signed(id="01JABC", timestamp=SIGNED_AT)


def test_other_headers_may_come_twice_and_be_null() -> None:
    """What is not ours is not judged."""
    others = [("x", b"1"), ("x", b"2"), ("x", None), ("", b"")]

    assert VERIFIER.verify([*others, *signed_headers()], KEY, VALUE).id == "01JABC"


@pytest.mark.parametrize("name", ["sig-id", "sig-ts", "sig"])
def test_missing_header_is_unsigned(name: str) -> None:
    """The reason names what is missing."""
    refused = refusal([header for header in signed_headers() if header[0] != name])

    assert (refused.code, refused.reason) == (Code.UNSIGNED, f"no header {name}")


def test_no_header_at_all_is_unsigned() -> None:
    """A record of somebody who does not sign names all three."""
    assert refusal([]).reason == "no header sig-id, sig-ts, sig"


@pytest.mark.parametrize("name", ["Sig-Id", "sig_id", " sig-id", "SIG-ID"])
def test_name_of_a_header_is_exact(name: str) -> None:
    """Kafka's header names have cases; another spelling is another header."""
    headers = [(name if n == "sig-id" else n, v) for n, v in signed_headers()]

    assert refusal(headers).code is Code.UNSIGNED


@pytest.mark.parametrize("name", ["sig-id", "sig-ts", "sig"])
@pytest.mark.parametrize("second", [None, b"", b"x", "same"])
def test_header_that_comes_twice_is_refused(name: str, second: bytes | str | None) -> None:
    """Even the same value twice: two readers might take two different ones."""
    again = dict(signed_headers())[name] if second == "same" else second

    headers = [*signed_headers(), (name, again)]

    assert refusal(headers).code is Code.DUPLICATE_HEADER  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sig-id", "sig-ts", "sig"])
def test_null_header_is_a_bad_signature(name: str) -> None:
    """A header that is there without a value is not one that is missing."""
    assert refusal(with_header(name, None)).code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "id_",
    [b"", b"a" * 65, b"01JABC\n", b"\n01JABC", b"01 JABC", b"\xff", "\u0661".encode(), b"a/b"],
)
def test_id_of_another_form_is_a_bad_signature(id_: bytes) -> None:
    """No id with a line break can shift the lines of the string to sign."""
    assert refusal(with_header("sig-id", id_)).code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "timestamp",
    [
        b"",
        b"-1",
        b"+1764000000",
        b"1764000000\n",
        b" 1764000000",
        b"1764000000.0",
        b"1_764_000_000",
        b"1" * 13,
        b"0x1",
        b"\xd9\xa1",
        b"now",
    ],
)
def test_time_of_another_form_is_a_bad_signature(timestamp: bytes) -> None:
    """ASCII digits, at most twelve; nothing else that int() would take."""
    assert refusal(with_header("sig-ts", timestamp)).code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("id_", "timestamp"),
    [(b"01JABC\n", b"1764000000"), (b"", b"1764000000"), (b"01JABC", b"1764000000\n")],
)
def test_right_mac_does_not_excuse_a_wrong_form(id_: bytes, timestamp: bytes) -> None:
    """Who has the secret cannot sign what would shift a line, or break a log, either."""
    digests = [hashlib.sha256(data).hexdigest().encode() for data in (KEY, VALUE)]
    string = b"\n".join([b"kmsg-sig-v1", b"k1", TOPIC.encode(), id_, timestamp, *digests])
    sig = b"v1.k1." + hmac.digest(SECRET, string, "sha256").hex().encode()

    refused = refusal([("sig-id", id_), ("sig-ts", timestamp), ("sig", sig)])

    assert refused.code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "change",
    [
        lambda sig: sig + b"\n",
        lambda sig: b" " + sig,
        lambda sig: sig + b" ",
        lambda sig: sig + b"  " + sig,
        lambda sig: sig + b"," + sig,
        lambda sig: sig + b"\t" + sig,
        lambda sig: sig + b" junk",
        lambda sig: sig[:-1],
        lambda sig: sig + b"0",
        lambda sig: sig.upper(),
        lambda sig: sig.replace(b"v1", b"v2"),
        lambda sig: sig.replace(b"k1", b""),
        lambda sig: sig.replace(b"k1", b"k" * 33),
        lambda sig: sig.replace(b"k1", b"k.1"),
        lambda sig: b" ".join([sig] * 5),
        lambda _: b"",
        lambda _: b" ",
        lambda _: b" " * 1_000_000,
    ],
)
def test_signature_of_another_form_is_a_bad_signature(change: Any) -> None:
    """One malformed signature refuses all, though a good one stands beside it."""
    sig = dict(signed_headers())["sig"]

    assert refusal(with_header("sig", change(sig))).code is Code.BAD_SIGNATURE


@given(st.lists(st.tuples(st.sampled_from(["sig-id", "sig-ts", "sig", "x"]), st.binary())))
def test_any_headers_are_refused_by_name(headers: Headers) -> None:
    """Whatever stands in the headers, a forger gets one code of the signature's four."""
    assert refusal(headers).code in {
        Code.UNSIGNED,
        Code.DUPLICATE_HEADER,
        Code.UNKNOWN_KEY,
        Code.BAD_SIGNATURE,
    }
