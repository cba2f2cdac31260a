"""The port of a running consumer: its metrics are what happened, its probes what holds."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas import Code, Stage, headers
from tests.conftest import EmbeddedBroker
from tests.consumer_process import read_all
from tests.faults.poison import publish_poison
from tests.faults.scenario import names, scenario
from tests.metrics_page import Metrics, metrics_when, port_of, probe, value

pytestmark = pytest.mark.integration


def _done(metrics: Metrics) -> float:
    return sum(found for (name, _), found in metrics.items() if name == "imagelane_records_total")


async def test_metrics_are_what_happened(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    """A run of every code: as many of each as results and dead letters say, and nothing is left."""
    async with scenario(embedded_broker, tmp_path) as run:  # type: ignore[arg-type]
        await publish_poison(run)
        await run.publish(names(1))
        await run.publish(names(1))  # a repeat
        place = run.topics.ingest, "0"
        sent = len(await read_all(run.bootstrap, run.topics.ingest))
        consumer = run.start(HEALTH_PORT="0", CREATE_WINDOW_SECONDS="300")
        metrics = await metrics_when(
            consumer, lambda m: _done(m) == sent and value(m, "backlog_records", *place) == 0
        )
        letters = await read_all(run.bootstrap, run.topics.dlq)
        results = await read_all(run.bootstrap, run.topics.results)
        codes = Counter(dict(letter.headers)[headers.DLQ_CODE].decode() for letter in letters)
        assert set(codes) == set(Code)
        refusals = {code for code in Code if code.stage is Stage.ADMIT}
        for code, count in codes.items():
            outcome = "refused" if code in refusals else "error"
            assert value(metrics, "records_total", outcome, code) == count
        errors = sum(count for code, count in codes.items() if code not in refusals)
        oks = len(results) - errors
        assert value(metrics, "records_total", "ok", "") == oks
        assert value(metrics, "records_total", "repeat", "") == 1
        assert value(metrics, "stage_seconds_count", "total") == oks + errors
        assert value(metrics, "batch_images_sum", "clip") >= oks
        assert value(metrics, "open_records", *place) == 0
        assert value(metrics, "assigned_partitions") == 1
        port = port_of(consumer)
        assert await asyncio.to_thread(probe, port, "/readyz") == (200, "ready\n")
        assert await asyncio.to_thread(probe, port, "/livez") == (200, "live\n")


async def test_backlog_is_what_is_left_to_do(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """One image that hangs holds the committed offset back, and nothing else: Kafka's lag is 31."""
    async with scenario(embedded_broker, tmp_path) as run:  # type: ignore[arg-type]
        place = run.topics.ingest, "0"
        await run.publish(["slow"], uri="stub:hang")
        await run.publish(names(30))
        consumer = run.start(HEALTH_PORT="0", HANG_SECONDS="600", FETCH_TOTAL_SECONDS="600")
        metrics = await metrics_when(consumer, lambda m: _done(m) == 30)
        assert await run.lag() == 31
        assert value(metrics, "backlog_records", *place) == 1
        assert value(metrics, "open_records", *place) == 1


async def test_backlog_ends_behind_a_transaction(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Its marker is no record, so that nothing is left where Kafka's lag stays 1.

    While it is open, its records cannot be read: they are no backlog, and told by themselves.
    """
    async with scenario(embedded_broker, tmp_path) as run:  # type: ignore[arg-type]
        place = run.topics.ingest, "0"
        await run.publish(names(5))
        consumer = run.start(HEALTH_PORT="0")
        await metrics_when(consumer, lambda m: _done(m) == 5)
        async with AIOKafkaProducer(
            bootstrap_servers=run.bootstrap, transactional_id=f"of.{run.topics.ingest}"
        ) as stranger:
            await stranger.begin_transaction()
            await stranger.send_and_wait(run.topics.ingest, b"unsigned")
            held = await metrics_when(
                consumer, lambda m: value(m, "last_stable_offset_lag_records", *place) == 1
            )
            assert value(held, "backlog_records", *place) == 0
            await stranger.commit_transaction()
        metrics = await metrics_when(
            consumer, lambda m: _done(m) == 6 and value(m, "open_records", *place) == 0
        )
        assert value(metrics, "records_total", "refused", "unsigned") == 1
        await metrics_when(consumer, lambda m: value(m, "backlog_records", *place) == 0)
        assert await run.lag() == 1
