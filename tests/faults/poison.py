"""Records of every code, each between good ones; ids are `bad.` and the code or the reference."""

import time

from aiokafka import AIOKafkaProducer

from schemas import Code, KeyRing, Signer
from tests.faults.scenario import SECRET, Scenario

POISON = {
    "text": Code.NOT_AN_IMAGE,
    "broken": Code.CORRUPT_IMAGE,
    "busy": Code.IMAGE_UNAVAILABLE,
    "not_found": Code.NOT_FOUND,
    "access_denied": Code.ACCESS_DENIED,
    "forbidden_source": Code.FORBIDDEN_SOURCE,
    "image_too_large": Code.IMAGE_TOO_LARGE,
    "digest_mismatch": Code.DIGEST_MISMATCH,
    "too_many_pixels": Code.TOO_MANY_PIXELS,
    "unsupported_format": Code.UNSUPPORTED_FORMAT,
    "decoder_crashed": Code.DECODER_CRASHED,
    "inference_failed": Code.INFERENCE_FAILED,
    "text_too_long": Code.TEXT_TOO_LONG,
}

Headers = list[tuple[str, bytes]]


async def publish_poison(run: Scenario) -> None:
    """Publish one bad record of each code and one with nothing in it, and good ones between."""
    for number, name in enumerate(POISON):
        await run.publish([f"good{number}"])
        await run.publish([f"bad.{name}"], uri=f"stub:{name}")
    for code, value, headers in refused_records(run.topics.ingest):
        await _send_raw(run, f"bad.{code}", value, headers)
        await run.publish([f"after.{code}"])
    await _send_empty(run, "bad.empty")


def refused_records(topic: str) -> list[tuple[Code, bytes | None, Headers]]:
    """Return a value and headers for each code of stage admit; ids are `bad.CODE`."""

    def signed(code: Code, value: bytes | None, *, age: int = 0, key_id: str = "k1") -> Headers:
        keys = KeyRing(current_id=key_id, secrets={key_id: SECRET.encode()})
        name, key = f"bad.{code}", f"bad.{code}".encode()
        now = int(time.time()) - age
        return Signer(keys, topic).sign(id=name, timestamp=now, key=key, value=value)

    def request(code: Code, version: int = 1) -> bytes:
        return b'{"version":%d,"id":"bad.%s","image":{"uri":"stub:ok"}}' % (version, code.encode())

    huge, zeros = b"x" * 300_000, b"v1.k1." + b"0" * 64
    return [
        (Code.UNSIGNED, b"{}", [("sig-id", b"bad.unsigned"), ("big", b"x" * 900_000)]),
        (
            Code.BAD_SIGNATURE,
            b"\x00\xff" * 100,
            [("sig-id", b"bad.bad_signature"), ("sig-ts", b"1"), ("sig", zeros)],
        ),
        (Code.UNKNOWN_KEY, b"{}", signed(Code.UNKNOWN_KEY, b"{}", key_id="k9")),
        (Code.DUPLICATE_HEADER, None, [("sig-id", b"bad.duplicate_header")] * 2),
        (Code.STALE, request(Code.STALE), signed(Code.STALE, request(Code.STALE), age=400)),
        (Code.ID_MISMATCH, request(Code.STALE), signed(Code.ID_MISMATCH, request(Code.STALE))),
        (Code.TOO_LARGE, huge, signed(Code.TOO_LARGE, huge)),
        (Code.MALFORMED, None, signed(Code.MALFORMED, None)),
        (Code.INVALID, b'{"version":1}', signed(Code.INVALID, b'{"version":1}')),
        (
            Code.UNSUPPORTED_VERSION,
            request(Code.UNSUPPORTED_VERSION, 2),
            signed(Code.UNSUPPORTED_VERSION, request(Code.UNSUPPORTED_VERSION, 2)),
        ),
    ]


async def _send_raw(run: Scenario, name: str, value: bytes | None, headers: Headers) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=run.kafka.bootstrap, max_request_size=2**21
    ) as producer:
        await producer.send_and_wait(
            run.topics.ingest, key=name.encode(), value=value, headers=headers
        )


async def _send_empty(run: Scenario, name: str) -> None:
    """Send a record with neither key nor value, which Kafka allows."""
    async with AIOKafkaProducer(bootstrap_servers=run.kafka.bootstrap) as producer:
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=None, headers=[("sig-id", name.encode())])
        await (await producer.send_batch(batch, run.topics.ingest, partition=0))
