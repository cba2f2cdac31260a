"""The wire contract: messages, signatures, codes. Pure: no network, no environment, no clock."""

from schemas.admission import Freshness, admit
from schemas.codec import (
    decode_request,
    decode_result,
    decode_source,
    encode_request,
    encode_result,
)
from schemas.codes import Code, Refused, Stage
from schemas.messages import (
    Caption,
    Embedding,
    Failure,
    ImageInfo,
    ImageReference,
    JsonObject,
    Request,
    Result,
    Source,
    Task,
    TimingMs,
)
from schemas.records import Headers, OutgoingRecord, Record, TimestampType
from schemas.signing import KeyRing, Signed, Signer, Verifier

__all__ = [
    "Caption",
    "Code",
    "Embedding",
    "Failure",
    "Freshness",
    "Headers",
    "ImageInfo",
    "ImageReference",
    "JsonObject",
    "KeyRing",
    "OutgoingRecord",
    "Record",
    "Refused",
    "Request",
    "Result",
    "Signed",
    "Signer",
    "Source",
    "Stage",
    "Task",
    "TimestampType",
    "TimingMs",
    "Verifier",
    "admit",
    "decode_request",
    "decode_result",
    "decode_source",
    "encode_request",
    "encode_result",
]
