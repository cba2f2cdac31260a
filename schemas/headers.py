"""Names of the record headers."""

import re
from collections.abc import Sequence
from typing import Final

SIG_ID: Final = "sig-id"
SIG_TS: Final = "sig-ts"
SIG: Final = "sig"

CONTENT_TYPE: Final = "content-type"
JSON_CONTENT_TYPE: Final = b"application/json"

# CloudEvents 1.0, Kafka binding, binary mode.
CE_SPECVERSION: Final = "ce_specversion"
CE_ID: Final = "ce_id"
CE_SOURCE: Final = "ce_source"
CE_TYPE: Final = "ce_type"
CE_TIME: Final = "ce_time"

# W3C Trace Context; the signature does not cover it.
TRACEPARENT: Final = "traceparent"
_TRACEPARENT_FORM: Final = re.compile(
    rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

# Dead letters: KIP-1191's names, then our own.
DLQ_TOPIC: Final = "__dlq.errors.topic"
DLQ_PARTITION: Final = "__dlq.errors.partition"
DLQ_OFFSET: Final = "__dlq.errors.offset"
DLQ_GROUP: Final = "__dlq.errors.group"
DLQ_DELIVERY_COUNT: Final = "__dlq.errors.delivery.count"
DLQ_MESSAGE: Final = "__dlq.errors.message"
DLQ_CODE: Final = "dlq-code"
DLQ_STAGE: Final = "dlq-stage"
DLQ_ORIGINAL_TIMESTAMP: Final = "dlq-original-timestamp"
DLQ_TRUNCATED: Final = "dlq-truncated"
DLQ_TRACEPARENT: Final = "dlq-traceparent"


def is_dead_letter_header(name: str) -> bool:
    """Return whether a dead letter has this header of its own; a later dead letter replaces it."""
    return name.startswith(("__dlq.", "dlq-"))


def trace_id(found: Sequence[tuple[str, bytes]]) -> str | None:
    """Return the trace id of the one well-formed `traceparent`; None otherwise. It is no secret."""
    values = [value for name, value in found if name == TRACEPARENT]
    match = _TRACEPARENT_FORM.fullmatch(values[0] or b"") if len(values) == 1 else None
    return match[1].decode() if match else None
