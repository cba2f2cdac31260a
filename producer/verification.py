"""Whether a record of the results topic is what it claims to be."""

from schemas import Code, Record, Refused, Result, Verifier, decode_result


def verified_result(record: Record, verifier: Verifier) -> Result:
    """Return the result that an authentic record of the results topic holds.

    Raises:
        Refused: the signature does not hold, or what it vouches for is no result.
    """
    return verified(record, verifier)[0]


def verified(record: Record, verifier: Verifier) -> tuple[Result, int]:
    """Return the result, and when it was signed in Unix seconds; raises as `verified_result`."""
    signed = verifier.verify(record.headers, record.key, record.value)
    if record.value is None:
        raise Refused(Code.MALFORMED, "the value is null")
    result = decode_result(record.value)
    if result.id != signed.id:
        raise Refused(
            Code.ID_MISMATCH, f"the value's id is {result.id}, the signature's {signed.id}"
        )
    return result, signed.timestamp
