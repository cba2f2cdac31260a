"""Keys: their rotation, and what a signer refuses to sign."""

import pytest

from schemas import Code, Headers, KeyRing, Refused, Signer, Verifier
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
ROTATED = KeyRing(
    current_id="k2", secrets={"k2": b"a new secret, of at least 32 bytes", "k1": SECRET}
)


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


def test_previous_key_still_verifies() -> None:
    """After a rotation, what the old key signed is accepted."""
    assert Verifier(ROTATED, TOPIC).verify(signed_headers(), KEY, VALUE).id == "01JABC"


def test_previous_key_never_signs() -> None:
    """After a rotation the new key signs, and who has only the old one does not know it."""
    headers = Signer(ROTATED, TOPIC).sign(id="01JABC", timestamp=SIGNED_AT, key=KEY, value=VALUE)

    assert dict(headers)["sig"].startswith(b"v1.k2.")
    assert refusal(headers).code is Code.UNKNOWN_KEY


def test_signatures_of_both_keys_satisfy_both_sides_of_a_rotation() -> None:
    """A record may carry up to four, and one good one is enough, in any place."""
    old = dict(signed_headers())["sig"]
    new = dict(Signer(ROTATED, TOPIC).sign(id="01JABC", timestamp=SIGNED_AT, key=KEY, value=VALUE))
    both = with_header("sig", b" ".join([b"v1.k7." + HEX, new["sig"], b"v1.k1." + HEX, old]))

    assert VERIFIER.verify(both, KEY, VALUE).id == "01JABC"
    assert Verifier(ROTATED, TOPIC).verify(both, KEY, VALUE).id == "01JABC"


def test_only_the_key_that_is_named_is_tried() -> None:
    """A mac by one key does not pass under the name of another."""
    mislabelled = dict(signed_headers())["sig"].replace(b"k1", b"k2")

    refused = refusal(with_header("sig", mislabelled), verifier=Verifier(ROTATED, TOPIC))

    assert refused.code is Code.BAD_SIGNATURE


def test_unknown_keys_are_named() -> None:
    """The reason tells which keys were asked for, so that a rotation can be put right."""
    refused = refusal(with_header("sig", b"v1.k8.%s v1.k9.%s" % (HEX, HEX)))

    assert refused.code is Code.UNKNOWN_KEY
    assert "k8, k9" in refused.reason


@pytest.mark.parametrize("id_", ["", "a" * 65, "a b", "a\n", "\u0661", "\ud800"])
def test_signer_refuses_an_id_that_no_verifier_accepts(id_: str) -> None:
    """The mistake shows at the sender, not in the dead letters."""
    with pytest.raises(ValueError, match=r"message id|surrogates"):
        signed_headers(id=id_)


@pytest.mark.parametrize("timestamp", [-1, 10**12])
def test_signer_refuses_a_time_that_no_verifier_accepts(timestamp: int) -> None:
    """The same for the time."""
    with pytest.raises(ValueError, match="Unix seconds"):
        signed_headers(timestamp=timestamp)


def test_secret_is_in_no_text_of_the_keys() -> None:
    """A key ring that is logged or printed shows ids and no secret."""
    assert "horse" not in f"{KEYS!r} {KEYS} {ROTATED!r} {VERIFIER!r} {Signer(KEYS, TOPIC)!r}"
