"""The example of an ingestion service, over HTTP and against real brokers."""

from collections.abc import AsyncIterator

import httpx
import pytest

from examples.ingestion.service import app
from producer import ProducerSettings
from tests.answering import CAPTION, answering_consumer
from tests.conftest import Broker, Topics

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(
    broker: Broker, topics: Topics, secret: str, monkeypatch: pytest.MonkeyPatch
) -> ProducerSettings:
    here = {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "BROKER_TIMEOUT_SECONDS": "10",
    }
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    return ProducerSettings.from_env(here)


@pytest.fixture
async def service(settings: ProducerSettings) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://ingestion") as client,
    ):
        yield client


async def test_a_picture_is_published_and_its_outcome_waited_for(
    settings: ProducerSettings, service: httpx.AsyncClient
) -> None:
    """At once, or with what became of it."""
    at_once = await service.post("/images", json={"uri": "s3://b/k"})
    async with answering_consumer(settings):
        waited = await service.post("/images?wait=30", json={"uri": "s3://b/l", "album": 7})

    assert (at_once.status_code, at_once.json()["status"]) == (202, "published")
    assert (waited.status_code, waited.json()["status"]) == (202, "ok")
    assert waited.json()["caption"] == CAPTION


async def test_a_result_that_is_late_is_no_failure(service: httpx.AsyncClient) -> None:
    """The request is in the log."""
    answer = await service.post("/images?wait=0.2", json={"uri": "s3://b/k"})

    assert (answer.status_code, answer.json()["status"]) == (202, "published")


async def test_what_is_no_request_is_refused(service: httpx.AsyncClient) -> None:
    """With the reason."""
    answer = await service.post("/images", json={"uri": "/no/such/file.jpg"})

    assert answer.status_code == 422
    assert "no such file" in answer.json()["detail"]
