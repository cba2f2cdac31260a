"""Bad records between good ones, images that hang, and a long queue: nobody else is held back."""

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from schemas import Code
from tests.containers import ApacheKafka
from tests.faults.poison import POISON, publish_poison, refused_records
from tests.faults.scenario import full_only, names, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker]


async def test_poison_between_good_records(kafka: ApacheKafka, tmp_path: Path) -> None:
    """Every code of the list, each between good records, which are unaffected."""
    async with scenario(kafka, tmp_path) as run:
        await publish_poison(run)
        ledger = await run.finish(run.start())
        ledger.check()
        assert set(ledger.letters) == {name for name in ledger.sent if name.startswith("bad.")}
        assert set(ledger.refused) == ledger.letters.keys() - {f"bad.{name}" for name in POISON}
        codes = {*POISON.values(), *(code for code, *_ in refused_records(run.topics.ingest))}
        assert codes == set(Code)
        refused = {f"bad.{code}" for code in codes - set(POISON.values())}
        assert refused | {"bad.empty"} == set(ledger.refused)


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
