"""Results as a consumer signs them, written to the results topic."""

import base64
import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from producer import ProducerSettings
from schemas import (
    Caption,
    Code,
    Embedding,
    Failure,
    ImageInfo,
    OutgoingRecord,
    Result,
    Signer,
    Source,
    TimingMs,
    encode_result,
)

SIGNED_AT = 1_764_000_000


def error_result(id: str, code: str = Code.NOT_FOUND) -> Result:
    """The result of an image that could not be processed."""
    return Result(
        id=id,
        status="error",
        error=Failure(code=code, message="why", attempts=1),
        timing_ms=TimingMs(total=1.0),
        source=Source(topic="image.ingest", partition=0, offset=0),
    )


def ok_result(
    id: str, vector: Sequence[float] = (0.6, 0.8), *, model: str = "m", caption: str = "a circle"
) -> Result:
    """The result of an image, with an embedding and a caption."""
    data = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return Result(
        id=id,
        status="ok",
        image=ImageInfo(uri=f"s3://b/{id}", sha256="0" * 64, width=2, height=1, format="PNG"),
        embedding=Embedding(
            model=model, revision="1", dim=len(vector), encoding="base64", data=data
        ),
        caption=Caption(model="c", revision="2", text=caption),
        timing_ms=TimingMs(total=1.0),
        source=Source(topic="image.ingest", partition=0, offset=7),
        metadata={"album": 7},  # type: ignore[arg-type]  # the model makes a JsonObject of it
    )


def signed(
    settings: ProducerSettings,
    result: Result,
    signed_at: int = SIGNED_AT,
    *,
    key: bytes | None = None,
) -> OutgoingRecord:
    """The record of a result, signed then, under the id if not under another key."""
    value, topic = encode_result(result), settings.results_topic
    key = result.id.encode() if key is None else key
    headers = Signer(settings.keys, topic).sign(
        id=result.id, timestamp=signed_at, key=key, value=value
    )
    return OutgoingRecord(topic=topic, key=key, value=value, headers=headers)


async def write(
    settings: ProducerSettings, records: Sequence[OutgoingRecord], partition: int = 0
) -> None:
    """Write the records to one partition, in order."""
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        for record in records:
            await producer.send_and_wait(
                record.topic,
                record.value,
                key=record.key,
                headers=list(record.headers),
                partition=partition,
            )
