"""The golden vectors, verdict by verdict: what any implementation of the signature agrees with."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas import KeyRing, Refused, Signed, Signer, Verifier

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__).parents[2].joinpath("vectors", "vectors.json").read_text(encoding="utf-8")
)
ACCEPTED = [vector for vector in VECTORS if vector["verdict"] == "accept"]
REFUSED = [vector for vector in VECTORS if vector["verdict"] != "accept"]


def in_bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def keys(vector: dict[str, Any]) -> KeyRing:
    return KeyRing(current_id=vector["kid"], secrets={vector["kid"]: vector["secret"].encode()})


def verify(vector: dict[str, Any]) -> Signed:
    headers = [
        ("sig-id", vector["id"].encode()),
        ("sig-ts", str(vector["ts"]).encode()),
        ("sig", vector["sig"].encode()),
    ]
    return Verifier(keys(vector), vector["audience"]).verify(
        headers, in_bytes(vector["key"]), in_bytes(vector["value"])
    )


def test_vectors_of_both_kinds_are_there() -> None:
    """An empty or cut file does not pass for agreement."""
    assert len(ACCEPTED) >= 9
    assert len(REFUSED) >= 12


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector["name"])
def test_vector_is_accepted(vector: dict[str, Any]) -> None:
    """The signature vouches for the id and the time."""
    assert verify(vector) == Signed(id=vector["id"], timestamp=vector["ts"])


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector["name"])
def test_vector_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    """The code is the one that the vector names."""
    with pytest.raises(Refused) as caught:
        verify(vector)

    assert caught.value.code == vector["verdict"]


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector["name"])
def test_signer_makes_the_vectors_signature(vector: dict[str, Any]) -> None:
    """We sign what everybody else signs."""
    headers = dict(
        Signer(keys(vector), vector["audience"]).sign(
            id=vector["id"],
            timestamp=vector["ts"],
            key=in_bytes(vector["key"]),
            value=in_bytes(vector["value"]),
        )
    )

    assert headers["sig"].decode() in vector["sig"].split(" ")
