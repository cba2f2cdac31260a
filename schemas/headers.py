"""Names of the record headers, and what a dead letter's say."""

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


def is_dead_letter_header(name: str) -> bool:
    """Tell whether a second pass through the dead letters replaces this header."""
    return name.startswith(("__dlq.", "dlq-"))
