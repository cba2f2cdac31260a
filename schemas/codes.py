"""The closed list of codes: why a record has no embedding and no caption.

    admit ──► fetch ──► decode ──► infer
      │         │         │          │
      ▼         ▼         ▼          ▼
    refused   failed    failed     failed

A code of stage `admit` refuses the record: one dead letter and no result, since only a valid
signature gets an answer. A code of any later stage fails it: one `error` result and one dead
letter. Results, dead letters, metrics and documentation share this list.
"""

from enum import StrEnum
from typing import Self


class Stage(StrEnum):
    ADMIT = "admit"
    FETCH = "fetch"
    DECODE = "decode"
    INFER = "infer"


class Code(StrEnum):
    """A reason, with its stage and whether a retry can heal it."""

    stage: Stage
    retryable: bool

    def __new__(cls, value: str, stage: Stage, retryable: bool = False) -> Self:
        code = str.__new__(cls, value)
        code._value_ = value
        code.stage = stage
        code.retryable = retryable
        return code

    UNSIGNED = "unsigned", Stage.ADMIT
    BAD_SIGNATURE = "bad_signature", Stage.ADMIT
    UNKNOWN_KEY = "unknown_key", Stage.ADMIT
    DUPLICATE_HEADER = "duplicate_header", Stage.ADMIT
    STALE = "stale", Stage.ADMIT
    ID_MISMATCH = "id_mismatch", Stage.ADMIT
    TOO_LARGE = "too_large", Stage.ADMIT
    MALFORMED = "malformed", Stage.ADMIT
    INVALID = "invalid", Stage.ADMIT
    UNSUPPORTED_VERSION = "unsupported_version", Stage.ADMIT
    FORBIDDEN_SOURCE = "forbidden_source", Stage.FETCH
    NOT_FOUND = "not_found", Stage.FETCH
    ACCESS_DENIED = "access_denied", Stage.FETCH
    IMAGE_UNAVAILABLE = "image_unavailable", Stage.FETCH, True
    IMAGE_TOO_LARGE = "image_too_large", Stage.FETCH
    DIGEST_MISMATCH = "digest_mismatch", Stage.FETCH
    NOT_AN_IMAGE = "not_an_image", Stage.DECODE
    UNSUPPORTED_FORMAT = "unsupported_format", Stage.DECODE
    TOO_MANY_PIXELS = "too_many_pixels", Stage.DECODE
    CORRUPT_IMAGE = "corrupt_image", Stage.DECODE
    DECODER_CRASHED = "decoder_crashed", Stage.DECODE
    INFERENCE_FAILED = "inference_failed", Stage.INFER
    TEXT_TOO_LONG = "text_too_long", Stage.INFER


class Refused(Exception):
    """A record that is not admitted; `code` is of stage `admit`, `reason` is for a person."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
