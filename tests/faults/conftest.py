"""`BOOTSTRAP=host:port make faults`: an existing cluster instead of a container."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import require_docker
from tests.containers import KAFKA_IMAGE, ApacheKafka
from tests.faults.cluster import ThreeBrokers


class ExistingKafka:
    """A cluster that somebody else runs, with Kafka's console tools on PATH."""

    name = "existing"

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def tool(self, name: str, *arguments: str, timeout_seconds: float = 60) -> bytes:
        """Run one of Kafka's console tools and return what it prints."""
        command = [f"{name}.sh", "--bootstrap-server", self.bootstrap, *arguments]
        return subprocess.run(
            command, capture_output=True, check=True, timeout=timeout_seconds
        ).stdout


@pytest.fixture(scope="session")
def kafka() -> Iterator[ApacheKafka | ExistingKafka]:
    """The cluster of `BOOTSTRAP`, or Apache Kafka in a container."""
    if bootstrap := os.environ.get("BOOTSTRAP"):
        if not shutil.which("kafka-transactions.sh"):
            pytest.fail("BOOTSTRAP is set, but kafka-transactions.sh is not on PATH")
        yield ExistingKafka(bootstrap)
        return
    require_docker(KAFKA_IMAGE)
    with ApacheKafka.running() as broker:
        yield broker


@pytest.fixture(scope="session")
def three() -> Iterator[ThreeBrokers]:
    """Three brokers whose coordinators need some time to load."""
    require_docker(KAFKA_IMAGE)
    with ThreeBrokers.running(padding=200_000) as cluster:
        yield cluster
