"""A real consumer process with the tiny checkpoints, and the ledger of what it did."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from tests.conftest import ROOT, Topics

MODELS = ROOT / "examples" / "models"
PICTURES = ROOT / "examples" / "pictures"
PATIENCE_SECONDS = 60


def environment(bootstrap: str, topics: Topics, secret: str, **changes: str) -> dict[str, str]:
    """Return the settings of a consumer of `topics`; an empty change takes one away."""
    return {
        "BOOTSTRAP_SERVERS": bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "QUERIES_TOPIC": topics.queries,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "GROUP_ID": f"group.{topics.ingest}",
        "CLIP_MODEL": str(MODELS / "tiny-clip"),
        "BLIP_MODEL": str(MODELS / "tiny-blip"),
        "FILE_ROOTS": str(PICTURES),
        "SESSION_TIMEOUT_SECONDS": "6",
        "TRANSACTION_TIMEOUT_SECONDS": "5",
        "BROKER_WAIT_SECONDS": "0",
        "LOG_FORMAT": "json",
        **changes,
    }


def run_consumer(
    settings: Mapping[str, str], *arguments: str, timeout_seconds: float = PATIENCE_SECONDS
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m consumer` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        cwd="/",  # where no .env of the checkout is
        env=own_environment(settings),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


def own_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return all that a consumer process gets to see: its settings, and what Python needs."""
    own = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return {**own, "PYTHONPATH": str(ROOT), **settings}


@dataclass(slots=True, kw_only=True)
class Running:
    """A consumer process and the file that its log goes to."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def events(self) -> list[dict[str, object]]:
        """Return the log's lines so far that are events."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def wait_for(self, event: str, count: int = 1, **fields: object) -> list[dict[str, object]]:
        """Block until the log has an event with these fields `count` times, and return those."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            wanted = {"event": event, **fields}.items()
            found = [line for line in self.events() if wanted <= line.items()]
            if len(found) >= count:
                return found
            assert self.process.poll() is None, f"the consumer ended:\n{self.log.read_text()}"
            time.sleep(0.05)
        raise AssertionError(f"no {count} times {event!r} in:\n{self.log.read_text()}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def consumer_process(
    settings: Mapping[str, str], log: Path, module: str = "consumer"
) -> Iterator[Running]:
    """Start a consumer; it is killed at the end if it still runs."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd="/",
            env=own_environment(settings),
            stderr=output,
        )
    try:
        yield Running(process=process, log=log)
    finally:
        process.kill()
        process.wait()


async def read_all(bootstrap: str, topic: str) -> "list[ConsumerRecord[bytes, bytes]]":
    """Return what a read_committed reader sees of a topic's partition 0, up to its end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    async with consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        records: list[ConsumerRecord[bytes, bytes]] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await consumer.position(partition) < end:
                batches = await consumer.getmany(timeout_ms=100)
                records += [record for batch in batches.values() for record in batch]
        return records


async def outcomes_by_id(bootstrap: str, topics: Topics) -> tuple[Counter[str], Counter[str]]:
    """Count results and dead letters by message id, as a read_committed reader sees them."""
    results = await read_all(bootstrap, topics.results)
    letters = await read_all(bootstrap, topics.dlq)
    return Counter(map(_message_id, results)), Counter(map(_message_id, letters))


def _message_id(record: "ConsumerRecord[bytes, bytes]") -> str:
    return dict(record.headers).get("sig-id", b"").decode()
