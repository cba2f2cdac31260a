"""`python -m benchmarks.transport`: what exactly once costs us beside the smallest correct loop.

Both are processes of their own that read the same records from Apache Kafka (in a container), write
one result for each, of the same size, and commit outputs and position in transactions of 500. The
smallest loop does nothing else. Ours verifies and parses each record, gives it a coroutine, a
worker and its place in the commit, and signs its result; images and models are stubs. In turn, in
one run, after the smallest loop has run alone a while: a broker that has just started gets
faster for minutes, and while it is slow whoever needs less of it is flattered. The rate is by the
timestamps of the results, first to last.

With `--peer quix` or `--peer faststream` ours stands beside a framework, which does nothing else
either (`benchmarks.transport_peers` says how to install them). With `--metrics` it is ours with
HEALTH_PORT, scraped twice a second, beside ours without.
"""

import argparse
import asyncio
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tests.consumer_process import read_all
from tests.containers import ApacheKafka
from tests.faults.ledger import lag
from tests.faults.scenario import Scenario, names, scenario
from tests.metrics_page import probe

LOOP, OURS, METERED = "smallest loop", "imagelane", "with metrics"
QUIX, FASTSTREAM = "quix", "faststream"
# Of the other one of the pair.
PROMISES = {(LOOP, OURS): 0.7, (OURS, METERED): 0.98, (QUIX, OURS): 1.0, (FASTSTREAM, OURS): 1.0}
PEERS_PYTHON = Path("build/peers/bin/python")
TRANSACTION = 500
RESULT_BYTES = 620  # what a stub's result has, headers aside


async def smallest_loop(bootstrap: str, ingest: str, results: str, group_id: str) -> None:
    """Consume, produce, commit, in transactions; until it is killed."""
    consumer = AIOKafkaConsumer(
        ingest,
        bootstrap_servers=bootstrap,
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=TRANSACTION,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=group_id, linger_ms=0)
    partition, value = TopicPartition(ingest, 0), b"x" * RESULT_BYTES
    async with consumer, producer:
        while True:
            batch = (await consumer.getmany(timeout_ms=1000)).get(partition)
            if not batch:
                continue
            async with producer.transaction():
                for record in batch:
                    await producer.send(results, key=record.key, value=value)
                await producer.send_offsets_to_transaction(
                    {partition: OffsetAndMetadata(batch[-1].offset + 1, "")}, group_id
                )


def _start(run: Scenario, subject: str, port: int) -> "subprocess.Popen[bytes]":
    if subject in (OURS, METERED):
        return run.start(
            COMMIT_OUTCOMES=str(TRANSACTION),
            RECORDS_IN_FLIGHT="1500",
            STUBS="all",
            LOG_LEVEL="warning",
            **({"HEALTH_PORT": str(port)} if subject == METERED else {}),
        ).process
    arguments = [run.kafka.bootstrap, run.topics.ingest, run.topics.results, run.group_id]
    if subject == LOOP:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.transport", "--loop", *arguments]
        )
    peers = [str(PEERS_PYTHON), "-m", "benchmarks.transport_peers"]
    return subprocess.Popen([*peers, subject, *arguments, str(RESULT_BYTES)])


async def _rate(run: Scenario, count: int, subject: str) -> float:
    """Return the records a second of one of them."""
    await run.publish(names(count))
    port = _free_port()
    process = _start(run, subject, port)
    try:
        while await lag(run.kafka.bootstrap, run.topics.ingest, run.group_id):
            if subject == METERED:
                with suppress(OSError):  # it is starting
                    await asyncio.to_thread(probe, port, "/metrics")
            await asyncio.sleep(0.5)
    finally:
        process.kill()
        process.wait()
    written = [
        record.timestamp for record in await read_all(run.kafka.bootstrap, run.topics.results)
    ]
    assert len(written) == count
    return count / (max(written) - min(written)) * 1000


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


async def _compare(
    kafka: ApacheKafka, count: int, warm_up: int, rounds: int, pair: tuple[str, str]
) -> None:
    base, subject = pair
    rates: dict[str, list[float]] = {base: [], subject: []}
    warm: list[float] = []
    with TemporaryDirectory() as folder:
        for name in [base] * warm_up + [base, subject] * rounds:
            async with scenario(kafka, Path(folder)) as run:
                rate = await _rate(run, count, name)
            counted = len(warm) == warm_up
            (rates[name] if counted else warm).append(rate)
            note = "" if counted else " (not counted: the broker warms up)"
            print(f"{name:14} {rate:8.0f} records/s{note}", flush=True)
    ratio = median(of / to for to, of in zip(rates[base], rates[subject], strict=True))
    promised = PROMISES[pair]
    print(f"ratio, median of {rounds} pairs: {ratio:.3f}; promised at least {promised}")


def main() -> None:
    """Compare, or be the smallest loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="records a run")
    parser.add_argument(
        "--warm-up", type=int, default=10, help="runs of the loop that do not count"
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs")
    parser.add_argument("--peer", choices=(QUIX, FASTSTREAM), help="compare ours with a framework")
    parser.add_argument("--metrics", action="store_true", help="compare ours with and without")
    parser.add_argument("--loop", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        if options.loop:
            asyncio.run(smallest_loop(*options.loop))
        else:
            with ApacheKafka.running() as kafka:
                pair = (OURS, METERED) if options.metrics else (options.peer or LOOP, OURS)
                asyncio.run(_compare(kafka, options.count, options.warm_up, options.rounds, pair))


if __name__ == "__main__":
    main()
