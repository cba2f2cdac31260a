"""Sign a record, and verify one before anything in it is parsed.

The signature covers the value's bytes as they travel (nothing is serialised again), the topic, the
key (it picks the partition), the id and the time of signing. Each field is of a fixed character set
or hashed, so no two inputs give the same string to sign. A signature is tried by the key that it
names, and by no other.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.codes import Code, Refused
from schemas.headers import SIG, SIG_ID, SIG_TS
from schemas.records import Headers

MIN_SECRET_BYTES: Final = 32  # the length of SHA-256's output (RFC 2104, section 3)
MAX_SIGNATURES: Final = 4  # a rotation needs two; bounds the work for one record

ID_PATTERN: Final = r"[A-Za-z0-9._-]{1,64}"
KEY_ID_PATTERN: Final = r"[A-Za-z0-9_-]{1,32}"
_ID: Final = re.compile(ID_PATTERN.encode())
_TIMESTAMP: Final = re.compile(rb"[0-9]{1,12}")
_SIGNATURE: Final = re.compile(rb"v1\.(" + KEY_ID_PATTERN.encode() + rb")\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The secrets by key id: `current` signs, `current` and all `previous` verify."""

    current_id: str
    secrets: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a good signature vouches for: the message id and the Unix second of signing."""

    id: str
    timestamp: int


class Signer:
    """Signs records for one topic with the current key."""

    def __init__(self, keys: KeyRing, audience: str) -> None:
        self._key_id = keys.current_id.encode()
        self._keyed = _key(keys.secrets[keys.current_id])
        self._audience = audience.encode()

    def sign(
        self, *, id: str, timestamp: int, key: bytes | None, value: bytes | None
    ) -> list[tuple[str, bytes]]:
        """Return the three signature headers.

        Raises:
            ValueError: `id` or `timestamp` has a form that no verifier accepts.
        """
        message_id, ts = id.encode(), b"%d" % timestamp
        if not _ID.fullmatch(message_id):
            raise ValueError(f"a message id must match {ID_PATTERN}")
        if not _TIMESTAMP.fullmatch(ts):
            raise ValueError("a timestamp is Unix seconds, from 0 to 999999999999")
        fields = self._audience, message_id, ts, _digest(key), _digest(value)
        mac = _mac(self._keyed, self._key_id, *fields)
        return [(SIG_ID, message_id), (SIG_TS, ts), (SIG, b"v1.%s.%s" % (self._key_id, mac))]


class Verifier:
    """Verifies records that were signed for one topic."""

    def __init__(self, keys: KeyRing, audience: str) -> None:
        self._keyed = {key_id.encode(): _key(secret) for key_id, secret in keys.secrets.items()}
        self._audience = audience.encode()

    def verify(self, headers: Headers, key: bytes | None, value: bytes | None) -> Signed:
        """Return what the signature vouches for.

        Raises:
            Refused: `unsigned`, `duplicate_header`, `unknown_key` or `bad_signature`.
        """
        message_id, ts, signatures = _signature_headers(headers)
        known = self._known(signatures)
        if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(ts):
            raise Refused(
                Code.BAD_SIGNATURE, f"{SIG_ID} or {SIG_TS} has a form that cannot be signed"
            )
        fields = self._audience, message_id, ts, _digest(key), _digest(value)
        for key_id, mac in known:
            if hmac.compare_digest(_mac(self._keyed[key_id], key_id, *fields), mac):
                return Signed(id=message_id.decode(), timestamp=int(ts))
        raise Refused(
            Code.BAD_SIGNATURE, "the signature is not that of this topic, key, id, time and value"
        )

    def _known(self, signatures: bytes) -> list[tuple[bytes, bytes]]:
        """Return (key id, mac) of each signature by a known key; one malformed refuses all."""
        parts = signatures.split(b" ", MAX_SIGNATURES)  # a megabyte of spaces stays one split
        matches = [_SIGNATURE.fullmatch(part) for part in parts]
        if len(parts) > MAX_SIGNATURES or None in matches:
            raise Refused(
                Code.BAD_SIGNATURE,
                f"{SIG} is not 1 to {MAX_SIGNATURES} of v1.<key id>.<64 lower-case hex>",
            )
        pairs = [(match[1], match[2]) for match in matches if match]
        known = [(key_id, mac) for key_id, mac in pairs if key_id in self._keyed]
        if not known:
            names = ", ".join(key_id.decode() for key_id, _ in pairs)
            raise Refused(Code.UNKNOWN_KEY, f"no key is known by the id {names}")
        return known


def _signature_headers(headers: Headers) -> tuple[bytes, bytes, bytes]:
    found: dict[str, bytes] = {}
    for name, value in headers:
        if name in (SIG_ID, SIG_TS, SIG):
            if name in found:
                raise Refused(Code.DUPLICATE_HEADER, f"{name} comes twice")
            found[name] = value or b""  # Kafka's null
    missing = [name for name in (SIG_ID, SIG_TS, SIG) if name not in found]
    if missing:
        raise Refused(Code.UNSIGNED, f"no header {', '.join(missing)}")
    return found[SIG_ID], found[SIG_TS], found[SIG]


def _digest(data: bytes | None) -> bytes:
    return b"-" if data is None else hashlib.sha256(data).hexdigest().encode()


def _key(secret: bytes) -> hmac.HMAC:
    return hmac.new(secret, digestmod="sha256")


def _mac(keyed: hmac.HMAC, *fields: bytes) -> bytes:
    mac = keyed.copy()  # keying anew would take as long again
    mac.update(b"\n".join((b"kmsg-sig-v1", *fields)))
    return mac.hexdigest().encode()
