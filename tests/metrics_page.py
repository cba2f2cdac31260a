"""What a process says at its port: metrics as a mapping, probes as status and text."""

import asyncio
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.consumer_process import PATIENCE_SECONDS, Running

Metrics = Mapping[tuple[str, frozenset[str]], float]


def parse(text: str) -> dict[tuple[str, frozenset[str]], float]:
    """Return the samples by name and the values of their labels."""
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, *labels: str) -> float:
    """Return one sample of ours; NaN, which equals nothing, where there is none yet."""
    return metrics.get((f"imagelane_{name}", frozenset(labels)), math.nan)


def probe(port: int, path: str) -> tuple[int, str]:
    """Return status and body of one GET."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def port_of(consumer: Running) -> int:
    """Block until a consumer with HEALTH_PORT=0 has opened its port, and return it."""
    return int(str(consumer.wait_for("health")[0]["port"]))


async def metrics_when(consumer: Running, holds: Callable[[Metrics], bool]) -> Metrics:
    """Scrape a consumer with HEALTH_PORT=0 until something holds, and return that scrape."""
    port = await asyncio.to_thread(port_of, consumer)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, text = await asyncio.to_thread(probe, port, "/metrics")
            except OSError:
                raise AssertionError(consumer.log.read_text()) from None
            if holds(metrics := parse(text)):
                return metrics
            await asyncio.sleep(0.2)
