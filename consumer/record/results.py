"""Encodes an outcome as its records: a signed result, a dead letter, both or none."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from consumer.outcome import (
    DeadLetterContent,
    ErrorOutcome,
    ModelIdentity,
    OkOutcome,
    Outcome,
    RefusedOutcome,
    RepeatOutcome,
)
from consumer.record.dead_letters import content_of
from schemas import (
    Code,
    Failure,
    ImageInfo,
    OutgoingRecord,
    Record,
    Result,
    Signer,
    Source,
    encode_result,
    headers,
)
from schemas.messages import VERSION, Encoding

# A longer key would leave the result too little of the topic's limit; the id replaces it.
MAX_RESULT_KEY_BYTES: Final = 64 * 1024
MAX_REASON_BYTES: Final = 512
_CE_TYPE: Final = b"imagelane.result.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeEncoder:
    """Encodes outcomes of one group. `signer` signs for the results topic."""

    signer: Signer
    results_topic: str
    dlq_topic: str
    group_id: str
    embedder: ModelIdentity
    captioner: ModelIdentity
    encoding: Encoding = "base64"

    def write(self, record: Record, outcome: Outcome, now: float) -> list[OutgoingRecord]:
        """Return the records of one outcome; `now` is Unix time in seconds."""
        match outcome:
            case OkOutcome(request=request):
                return [self._result(record, request.id, self._ok(record, outcome), now)]
            case ErrorOutcome(request=request, code=code, message=message, attempts=attempts):
                result = self._result(record, request.id, self._error(record, outcome), now)
                content = content_of(record)
                return [result, self._dead_letter(record, content, code, message, attempts)]
            case RefusedOutcome(code=code, reason=reason, content=content):
                return [self._dead_letter(record, content, code, reason, attempts=1)]
            case RepeatOutcome():
                return []

    def _ok(self, record: Record, ok: OkOutcome) -> bytes:
        """Return the JSON of a `Result`.

        Built without the class: its validation would take longer than the rest of this file.
        """
        image, inference = ok.image, ok.inference
        timing_ms = {
            "queue": ok.queue_ms,
            "fetch": image and image.fetch_ms,
            "decode": image and image.decode_ms,
            "embed": inference.embed_ms,
            "caption": inference.caption_ms,
            "total": ok.total_ms,
        }
        result: dict[str, object] = {
            "version": VERSION,
            "id": ok.request.id,
            "status": "ok",
            "timing_ms": {name: ms for name, ms in timing_ms.items() if ms is not None},
            "source": {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "group": self.group_id,
            },
        }
        if image is not None:
            result["image"] = {
                "uri": ok.request.subject,
                "sha256": image.sha256,
                "width": image.width,
                "height": image.height,
                "format": image.format,
            }
        if inference.vector is not None:
            result["embedding"] = self._embedding(inference.vector)
        if inference.caption is not None:
            result["caption"] = self._caption(inference.caption)
        if ok.request.metadata is not None:
            result["metadata"] = orjson.Fragment(ok.request.metadata.as_sent)
        return orjson.dumps(result)

    def _error(self, record: Record, error: ErrorOutcome) -> bytes:
        image = error.request.image
        result = Result(
            id=error.request.id,
            status="error",
            image=ImageInfo(uri=image.uri) if image is not None else None,
            error=Failure(code=error.code, message=error.message, attempts=error.attempts),
            timing_ms=error.timing,
            source=Source(
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                group=self.group_id,
            ),
            metadata=error.request.metadata,
        )
        return encode_result(result)

    def _embedding(self, vector: NDArray[np.float32]) -> dict[str, object]:
        if self.encoding == "float":
            data: object = vector.tolist()
        else:
            dtype = ">f4" if self.encoding == "base64-be" else "<f4"
            data = base64.b64encode(vector.astype(dtype).tobytes()).decode()
        return {
            "model": self.embedder.model,
            "revision": self.embedder.revision,
            "dim": len(vector),
            "normalized": True,
            "dtype": "float32",
            "encoding": self.encoding,
            "data": data,
        }

    def _caption(self, text: str) -> dict[str, object]:
        return {"model": self.captioner.model, "revision": self.captioner.revision, "text": text}

    def _result(self, record: Record, id: str, value: bytes, now: float) -> OutgoingRecord:
        key = record.key
        if key is None or len(key) > MAX_RESULT_KEY_BYTES:
            key = id.encode()
        return OutgoingRecord(
            topic=self.results_topic,
            key=key,
            value=value,
            headers=[
                (headers.CONTENT_TYPE, headers.JSON_CONTENT_TYPE),
                (headers.CE_SPECVERSION, b"1.0"),
                (headers.CE_ID, id.encode()),
                (headers.CE_SOURCE, f"/imagelane/{self.group_id}/{record.topic}".encode()),
                (headers.CE_TYPE, _CE_TYPE),
                (headers.CE_TIME, _timestamp(now)),
                *self.signer.sign(id=id, timestamp=int(now), key=key, value=value),
            ],
        )

    def _dead_letter(
        self, record: Record, content: DeadLetterContent, code: Code, message: str, attempts: int
    ) -> OutgoingRecord:
        about = {
            headers.DLQ_TOPIC: record.topic,
            headers.DLQ_PARTITION: str(record.partition),
            headers.DLQ_OFFSET: str(record.offset),
            headers.DLQ_GROUP: self.group_id,
            headers.DLQ_DELIVERY_COUNT: str(attempts),
            headers.DLQ_MESSAGE: message.encode()[:MAX_REASON_BYTES].decode(errors="ignore"),
            headers.DLQ_CODE: str(code),
            headers.DLQ_STAGE: str(code.stage),
            headers.DLQ_ORIGINAL_TIMESTAMP: str(record.timestamp_ms),
        }
        if content.truncated:
            about[headers.DLQ_TRUNCATED] = "true"
        return OutgoingRecord(
            topic=self.dlq_topic,
            key=content.key,
            value=content.value,
            headers=[*content.headers, *((name, text.encode()) for name, text in about.items())],
        )


@lru_cache(maxsize=1)  # all results of a commit have one time
def _timestamp(now: float) -> bytes:
    """Return Unix seconds as RFC 3339, in UTC."""
    text = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").encode()
