"""Verification of records of the results topic."""

from schemas import Record, Result, Verifier, decode_result
from schemas.admission import decode_signed


def verified_result(record: Record, verifier: Verifier) -> Result:
    """Return the result of an authentic record; raises as `verified`."""
    return verified(record, verifier)[0]


def verified(record: Record, verifier: Verifier) -> tuple[Result, int]:
    """Return the result of an authentic record, and its time of signing in Unix seconds.

    Raises:
        Refused: the signature does not hold, or the signed value is no result.
    """
    signed = verifier.verify(record.headers, record.key, record.value)
    return decode_signed(record.value, signed, decode_result), signed.timestamp
