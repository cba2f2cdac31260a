"""A trace goes through a running consumer, whether or not somebody records it."""

import asyncio
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from producer import ProducerSettings, Publisher, image_request
from schemas import ImageReference, KeyRing, Request, Signer, encode_request, headers
from tests.conftest import EmbeddedBroker
from tests.consumer_process import read_all
from tests.faults.scenario import SECRET, scenario

pytestmark = pytest.mark.integration

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01".encode()


async def test_trace_of_the_publishers_caller_goes_on(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """What is published within a span has its result, and the log line, in that trace."""
    span = NonRecordingSpan(
        SpanContext(int(TRACE_ID, 16), 0xB7AD6B7169203331, False, TraceFlags(TraceFlags.SAMPLED))
    )
    async with scenario(embedded_broker, tmp_path) as run:  # type: ignore[arg-type]
        settings = ProducerSettings.from_env(run.settings())
        async with Publisher(settings) as publisher:
            with use_span(span):
                await publisher.publish(image_request("stub:ok", id="within"))
            await publisher.publish(image_request("stub:ok", id="outside"))
        consumer = run.start(TRACING="true")
        lines = await asyncio.to_thread(consumer.wait_for, "record done", 2)
        assert {line["id"]: line.get("trace_id") for line in lines} == {
            "within": TRACE_ID,
            "outside": None,
        }
        requests = await read_all(run.bootstrap, run.topics.ingest)
        assert [dict(one.headers).get(headers.TRACEPARENT) for one in requests] == [
            TRACEPARENT,
            None,
        ]


async def test_trace_of_the_request_goes_on_in_the_result(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Its id is in the log line too; a record that does not verify has it in neither."""
    async with scenario(embedded_broker, tmp_path) as run:  # type: ignore[arg-type]
        topic = run.topics.ingest
        keys = KeyRing(current_id="k1", secrets={"k1": SECRET.encode()})
        value = encode_request(Request(id="a", image=ImageReference(uri="stub:ok")))
        signed = Signer(keys, topic).sign(id="a", timestamp=int(time.time()), key=b"a", value=value)
        traced = (headers.TRACEPARENT, TRACEPARENT)
        async with AIOKafkaProducer(bootstrap_servers=run.bootstrap) as producer:
            await producer.send_and_wait(topic, key=b"a", value=value, headers=[*signed, traced])
            await producer.send_and_wait(topic, key=b"b", value=value, headers=[traced])
        consumer = run.start(TRACING="true")
        lines = await asyncio.to_thread(consumer.wait_for, "record done", 2)
        assert {line["outcome"]: line.get("trace_id") for line in lines} == {
            "ok": TRACE_ID,
            "refused": None,
        }
        [result] = await read_all(run.bootstrap, run.topics.results)
        [letter] = await read_all(run.bootstrap, run.topics.dlq)
        assert headers.trace_id(result.headers) == TRACE_ID
        assert headers.DLQ_TRACEPARENT not in dict(letter.headers)
