"""How the ingestion side reaches the topics of a test."""

import pytest

from producer import ProducerSettings
from tests.conftest import Broker, Topics


@pytest.fixture
def here(broker: Broker, topics: Topics, secret: str) -> dict[str, str]:
    """The environment of its commands."""
    return {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "BROKER_TIMEOUT_SECONDS": "10",
    }


@pytest.fixture
def settings(here: dict[str, str]) -> ProducerSettings:
    """The same, as the library takes it."""
    return ProducerSettings.from_env(here)
