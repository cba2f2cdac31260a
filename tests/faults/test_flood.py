"""A flood of forgeries: before the first good record and beside good ones, over a restart."""

import asyncio
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from consumer.record.dead_letters import BURST_SECONDS
from tests.consumer_process import Running, read_all
from tests.containers import ApacheKafka
from tests.faults.scenario import Scenario, names, scale, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]

BYTES_PER_SECOND = 256 * 1024
MAX_GROWTH_MIB = 150
TRUNCATED_BYTES = 2_000  # of a truncated dead letter: headers, hashes, and a short signature


async def _flood(run: Scenario, first: int, count: int) -> None:
    """Publish forgeries of all shapes; each hundredth is 100 kB, each thousandth all headers."""
    async with AIOKafkaProducer(bootstrap_servers=run.kafka.bootstrap) as producer:
        for number in range(first, first + count):
            named = [("sig-id", b"forged.%d" % number)]
            value, sent = b"x" * 200, named
            if number % 2:
                sent = [*named, ("sig-ts", b"1764000000"), ("sig", b"v1.k1." + b"0" * 64)]
            if number % 100 == 0:
                value = b"x" * 100_000
            if number % 1000 == 1:
                sent = [*sent, *[("h", b"1")] * 20_000]
            await producer.send(run.topics.ingest, value, key=b"k", headers=sent)
        await producer.flush()


def _resident_mib(consumer: Running, field: str) -> int:
    status = Path(f"/proc/{consumer.process.pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) // 1024


async def test_flood_of_forgeries(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Nothing is committed before a good record; then every record has its outcome.

    The process stays alive, its memory bounded, and the dead letters within their rate.
    """
    forgeries, good = scale(3_000, 100_000), scale(200, 5_000)
    async with scenario(kafka, tmp_path) as run:
        settings = {
            "DLQ_BYTES_PER_SECOND": str(BYTES_PER_SECOND),
            "COMMIT_OUTCOMES": "500",
            "LOG_LEVEL": "warning",
        }
        first = run.start(**settings)
        await _flood(run, 0, forgeries)
        await asyncio.to_thread(first.wait_for, "not ready", cause="secret")
        assert await asyncio.to_thread(first.end) == 0
        assert await run.lag() == forgeries
        consumer = run.start(**settings)
        await asyncio.to_thread(consumer.wait_for, "not ready", cause="secret")
        before = _resident_mib(consumer, "VmRSS")
        start = time.time()
        beside = asyncio.create_task(_flood(run, forgeries, good))
        await run.publish(names(good))
        await beside
        while await run.lag():
            assert consumer.process.poll() is None, consumer.log.read_text()[-2000:]
            assert time.time() - start < 400
            await asyncio.sleep(0.5)
        seconds, peak = time.time() - start, _resident_mib(consumer, "VmHWM")
        (await run.finish(consumer)).check()
        assert run.starts == 2
        letters = await read_all(kafka.bootstrap, run.topics.dlq)
        whole = sum(len(record.value) for record in letters if record.value[:1] == b"x")
        total = sum(
            len(record.value) + sum(len(n) + len(v) for n, v in record.headers)
            for record in letters
        )
        sys.stdout.write(
            f"\n{forgeries + good} forgeries, {good} good: {seconds:.0f} s; {before} MiB before, "
            f"at most {peak}; dead letters {total / 1e6:.1f} MB, {whole / 1e6:.1f} of them whole\n"
        )
        assert len(letters) == forgeries + good
        assert whole <= BYTES_PER_SECOND * (BURST_SECONDS + seconds)
        assert total <= BYTES_PER_SECOND * (BURST_SECONDS + seconds) + TRUNCATED_BYTES * len(
            letters
        )
        assert peak <= before + MAX_GROWTH_MIB
