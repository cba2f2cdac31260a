"""Message ids: unique, and sortable by their time."""

import secrets
import time
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U to misread
_RANDOM_BITS: Final = 80
_LENGTH: Final = 26


def new_id() -> str:
    """Return a new id, a ULID: 48 bits of Unix milliseconds, then 80 random ones."""
    return ulid(time.time_ns() // 1_000_000, secrets.randbits(_RANDOM_BITS))


def ulid(unix_ms: int, randomness: int) -> str:
    """Return 26 characters that sort as text the way (`unix_ms`, `randomness`) sorts as numbers."""
    number = unix_ms << _RANDOM_BITS | randomness
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
