"""A real Prometheus scrapes a running consumer: what dashboard and rules ask has an answer."""

import asyncio
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import EmbeddedBroker
from tests.containers import free_port
from tests.faults.poison import publish_poison
from tests.faults.scenario import names, scenario
from tests.metrics_page import port_of
from tests.unit.test_monitoring import RULES, dashboard_queries

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 60
# Nothing of these happens here: no GPU, and nothing that would be wrong.
WITHOUT_DATA = ("imagelane_device_memory_bytes", "imagelane_not_ready")


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1/"

    def get(self, path: str, **arguments: str) -> Any:
        """Return what it answers; raises while it does not."""
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self._base}{path}?{query}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def query(self, query: str) -> list[Any]:
        """Return the series that a query has now."""
        found: list[Any] = self.get("query", query=query)["result"]
        return found


@contextmanager
def scraping(program: str, folder: Path, port: int) -> Iterator[Prometheus]:
    """Run Prometheus on a consumer's port, each second, with our rules."""
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "a", "pod": "p"}}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "imagelane", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    own = free_port()
    command = [program, f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{own}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        yield Prometheus(own)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


async def test_every_query_has_an_answer(
    prometheus: str, embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """The dashboard's find series with data; the rules are evaluated, and no alert fires."""
    queries = [
        query.replace("$namespace", "a").replace("$pod", "p") for query in dashboard_queries()
    ]
    async with scenario(embedded_broker, tmp_path) as run:  # type: ignore[arg-type]
        await run.publish(names(1))
        consumer = run.start(HEALTH_PORT="0", CREATE_WINDOW_SECONDS="300")
        await asyncio.to_thread(consumer.wait_for, "record done")
        with scraping(prometheus, tmp_path, port_of(consumer)) as server:
            # Rates need a change: first what there is, then more of everything.
            await _until(lambda: server.query("imagelane_build_info"))
            await publish_poison(run)
            expected = [query for query in queries if not any(w in query for w in WITHOUT_DATA)]
            for query in expected:
                await _until(lambda query=query: server.query(query), query)
            for query in queries:
                server.query(query)
            groups = (await asyncio.to_thread(server.get, "rules"))["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert {rule["health"] for rule in rules} == {"ok"}
            assert not server.query('ALERTS{alertstate="firing"}')


async def _until(ask: Any, what: str = "") -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                if await asyncio.to_thread(ask):
                    return
            except OSError:
                pass  # it is starting
            await asyncio.sleep(0.2)
