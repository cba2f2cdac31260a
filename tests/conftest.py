"""The brokers, topics and the secret that tests share; what each marker means."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import hypothesis
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from tests.containers import KAFKA_IMAGE, ApacheKafka
from tests.effort import effort

ROOT = Path(__file__).resolve().parent.parent
MARKERS = {
    "browser": "needs chromium",
    "docker": "needs a Docker engine",
    "e2e": "the compose file, from build to results; `make e2e`",
    "gpu": "needs a CUDA device",
    "integration": "needs a broker, and more than one module",
}


# A machine that is busy is slow: how long an example takes says nothing.
hypothesis.settings.register_profile("untimed", deadline=None, max_examples=effort(100))
hypothesis.settings.load_profile("untimed")


# aiokafka leaves the socket of a start that failed or was cancelled to the garbage collector, which
# finds it in whatever test runs then.
_OF_FAILED_STARTS = (
    "ignore:unclosed transport:ResourceWarning",
    "ignore:unclosed <socket:ResourceWarning",
    "ignore:Unclosed AIOKafka:ResourceWarning",
    "ignore:loop is closed:ResourceWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    # The tests on a broker pass over what its client leaves open; the others do not.
    if not all("unit" in argument or "decoding" in argument for argument in config.args):
        for line in _OF_FAILED_STARTS:
            config.addinivalue_line("filterwarnings", line)
    # Ended as by Ctrl-C, so that the fixtures still remove their containers and brokers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    # aiokafka leaves the failures of a fenced producer unread, and asyncio reports them when they
    # are collected: now, and not after the summary, which is to be the last that is seen.
    gc.collect()


class Broker(Protocol):
    """A running broker: where it is, and which (`embedded` or `apache`)."""

    name: str
    bootstrap: str


@dataclass(slots=True, kw_only=True)
class EmbeddedBroker:
    bootstrap: str
    name: str = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Topics that only one test uses, one partition each."""

    ingest: str
    results: str
    dlq: str

    @property
    def queries(self) -> str:
        """The topic of the requests that go first."""
        return f"queries.{self.ingest}"


@pytest.fixture(scope="session")
def secret() -> str:
    """The shared secret of the tests."""
    return "a-secret-that-only-the-tests-know-0123456789"


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """The broker of examples/broker, built if it is not."""
    python = f"PYTHON={sys.executable}"
    built = subprocess.run(
        ["make", "build/broker", python], cwd=ROOT, capture_output=True, text=True
    )
    if built.returncode:
        pytest.fail(f"make build/broker failed:\n{built.stdout}{built.stderr}")
    data = tmp_path_factory.mktemp("broker")
    command = [str(ROOT / "build" / "broker"), "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield EmbeddedBroker(bootstrap=process.stdout.readline().strip())
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def kafka() -> Iterator[ApacheKafka]:
    """Apache Kafka in a container. No Docker: skipped, or failed where REQUIRE_DOCKER=1."""
    require_docker(KAFKA_IMAGE)
    with ApacheKafka.running() as broker:
        yield broker


def require_docker(image: str) -> None:
    """Skip the test where no container of `image` can be started; fail it if REQUIRE_DOCKER=1."""
    if not _runs("docker", "version"):
        lack = "no Docker engine answers"
    elif not _runs("docker", "image", "inspect", image) and not _runs("docker", "pull", image):
        lack = f"the image {image} is not here and cannot be pulled"
    else:
        return
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, but {lack}")
    pytest.skip(lack)


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=300).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(
    scope="session",
    params=["embedded_broker", pytest.param("kafka", marks=pytest.mark.docker)],
    ids=["embedded", "apache"],
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the two brokers in turn."""
    running: Broker = request.getfixturevalue(request.param)
    return running


@pytest.fixture
async def topics(broker: Broker) -> Topics:
    """Fresh topics on `broker`, with the settings that `producer topics` gives them."""
    tag = uuid4().hex[:12]
    topics = Topics(ingest=f"ingest.{tag}", results=f"results.{tag}", dlq=f"dlq.{tag}")
    requests = {
        "message.timestamp.type": "LogAppendTime",
        "compression.type": "uncompressed",
    }
    await create_topics(
        broker.bootstrap,
        NewTopic(topics.ingest, 1, 1, topic_configs=requests),
        NewTopic(topics.queries, 1, 1, topic_configs=requests),
        NewTopic(topics.results, 1, 1),
        NewTopic(topics.dlq, 1, 1),
    )
    return topics


async def create_topics(bootstrap: str, *topics: NewTopic) -> None:
    """Create topics, or raise the broker's error."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        response = await admin.create_topics(list(topics))
    finally:
        await admin.close()
    for name, code, *_ in response.topic_errors:
        if code:
            raise for_code(code)(name)
