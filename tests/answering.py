"""What a consumer does for a reader: a signed result for each request of the ingest topic."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from producer import ProducerSettings
from schemas import (
    Caption,
    ImageInfo,
    Request,
    Result,
    Signer,
    Source,
    TimingMs,
    decode_request,
    encode_result,
)

CAPTION = "a large red circle beside two small green stars on a very plain white background"
Answer = Callable[[Request, Source], Result | None]


def with_caption(request: Request, source: Source) -> Result:
    """An `ok` result with a long caption."""
    assert request.image is not None
    return Result(
        id=request.id,
        status="ok",
        image=ImageInfo(uri=request.image.uri, sha256="0" * 64, width=64, height=64, format="PNG"),
        caption=Caption(model="tests", revision="1", text=CAPTION),
        timing_ms=TimingMs(total=12.3),
        source=source,
        metadata=request.metadata,
    )


@asynccontextmanager
async def answering_consumer(
    settings: ProducerSettings, answer: Answer = with_caption
) -> AsyncIterator[None]:
    """Answer what is in the ingest topic, and what comes, while the body runs; None: no answer."""
    servers = list(settings.bootstrap_servers)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    signer = Signer(settings.keys, settings.results_topic)

    async def answer_all(producer: AIOKafkaProducer) -> None:
        async for record in consumer:
            request = decode_request(record.value)
            source = Source(topic=record.topic, partition=record.partition, offset=record.offset)
            result = answer(request, source)
            if result is None:
                continue
            value = encode_result(result)
            headers = signer.sign(
                id=result.id, timestamp=int(record.timestamp / 1000), key=record.key, value=value
            )
            await producer.send_and_wait(
                settings.results_topic, value, key=record.key, headers=list(headers)
            )

    async with consumer, AIOKafkaProducer(bootstrap_servers=servers) as producer:
        consumer.assign([TopicPartition(settings.ingest_topic, 0)])
        answering = asyncio.create_task(answer_all(producer))
        try:
            yield
        finally:
            answering.cancel()
            await asyncio.wait({answering})
