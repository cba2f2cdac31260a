"""Bad records between good ones, images that hang, and a long queue: nobody else is held back."""

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas import Code, KeyRing, Signer
from tests.containers import ApacheKafka
from tests.faults.scenario import SECRET, Scenario, full_only, names, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]

POISON = {
    "text": Code.NOT_AN_IMAGE,
    "broken": Code.CORRUPT_IMAGE,
    "busy": Code.IMAGE_UNAVAILABLE,
    "not_found": Code.NOT_FOUND,
    "forbidden_source": Code.FORBIDDEN_SOURCE,
    "image_too_large": Code.IMAGE_TOO_LARGE,
    "digest_mismatch": Code.DIGEST_MISMATCH,
    "too_many_pixels": Code.TOO_MANY_PIXELS,
    "unsupported_format": Code.UNSUPPORTED_FORMAT,
    "decoder_crashed": Code.DECODER_CRASHED,
    "inference_failed": Code.INFERENCE_FAILED,
}


async def test_poison_between_good_records(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Every code of the list, each between good records, which are unaffected."""
    async with scenario(kafka, tmp_path) as run:
        for number, name in enumerate(POISON):
            await run.publish([f"good{number}"])
            await run.publish([f"bad.{name}"], uri=f"stub:{name}")
        for code, value, headers in _refused(run.topics.ingest):
            await _send_raw(run, f"bad.{code}", value, headers)
            await run.publish([f"after.{code}"])
        await _send_empty(run, "bad.empty")
        ledger = await run.finish(run.start())
        ledger.check()
        assert set(ledger.letters) == {name for name in ledger.sent if name.startswith("bad.")}
        assert set(ledger.refused) == ledger.letters.keys() - {f"bad.{name}" for name in POISON}
        codes = {*POISON.values(), *(code for code, *_ in _refused(run.topics.ingest))}
        assert codes == set(Code)
        refused = {f"bad.{code}" for code in codes - set(POISON.values())}
        assert refused | {"bad.empty"} == set(ledger.refused)


Headers = list[tuple[str, bytes]]


def _refused(topic: str) -> list[tuple[Code, bytes | None, Headers]]:
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


async def test_crash_behind_a_hanging_image_doubles_nothing(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    """What was done above the low watermark is not done again, and the hanging one ends too."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(["slow"], uri="stub:hang")
        await run.publish(names(200))
        consumer = run.start()
        consumer.wait_for("record done", count=150)
        await asyncio.to_thread(consumer.end, 9)
        again = run.start()
        (await run.finish(again)).check()
        done = {event["offset"] for event in again.events() if event["event"] == "record done"}
        assert 0 in done
        assert len(done) < 60


@full_only
async def test_few_hanging_references_cost_little(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Each 100th reference hangs until its deadline: at least 90 % of the throughput without."""
    ratios = []
    for _ in range(3):
        rates = [await _good_a_second(kafka, tmp_path, every) for every in (0, 100)]
        ratios.append(rates[1] / rates[0])
        sys.stdout.write(f"\ngood records a second: {rates}; ratio {ratios[-1]:.2f}\n")
    assert sorted(ratios)[1] >= 0.9


async def _good_a_second(kafka: ApacheKafka, folder: Path, hang_every: int) -> float:
    """Return the rate from the first good record to the last; all of them wait at the start.

    The log's times are the clock: the group's position stands behind the first that hangs.
    """
    async with scenario(kafka, folder) as run:
        await run.publish(names(30_000), hang_every=hang_every)
        consumer = run.start(COMMIT_OUTCOMES="500")
        (await run.finish(consumer)).check()
        done = [e for e in consumer.events() if e["event"] == "record done"]
        times = [datetime.fromisoformat(str(e["time"])) for e in done if e["outcome"] == "ok"]
        consumer.log.unlink()  # the next one has the same name
        return len(times) / (max(times) - min(times)).total_seconds()


@full_only
async def test_long_backlog_is_worked_off_in_flat_memory(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    """100,000 records wait at the start: memory stays flat, and the lag falls without a stop."""
    async with scenario(kafka, tmp_path) as run:
        await run.publish(names(100_000))
        consumer, start = run.start(), time.monotonic()
        seen: list[tuple[int, int]] = []
        while lag := await run.lag():
            status = Path(f"/proc/{consumer.process.pid}/status").read_text()  # noqa: ASYNC240
            resident_kib = int(status.partition("VmRSS:")[2].split()[0])
            seen.append((lag, resident_kib // 1024))
            assert time.monotonic() - start < 600
            await asyncio.sleep(2)
        rate = 100_000 / (time.monotonic() - start)
        sys.stdout.write(f"\n{rate:.0f} records a second; lag and MiB: {seen}\n")
        falling = [lag for lag, _ in seen if lag < 100_000]
        assert falling == sorted(set(falling), reverse=True)
        (await run.finish(consumer)).check()
