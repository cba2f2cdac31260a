"""Pictures of a file found by words: the vector of the words comes from a consumer."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from producer import ProducerSettings
from schemas import Request, Result, Source
from tests.answering import answering_consumer
from tests.conftest import Broker, Topics
from tests.signed_results import ok_result

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(broker: Broker, topics: Topics, secret: str) -> dict[str, str]:
    return {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "SECRET_API_KEY": secret,
        "INGEST_TOPIC": topics.ingest,
        "QUERIES_TOPIC": topics.queries,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "BROKER_TIMEOUT_SECONDS": "10",
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures, of the model that `ok_result` names."""
    path = tmp_path / "pictures.npz"
    names = ("star", "circle", "square")
    np.savez(
        path,
        ids=np.array(names),
        uris=np.array([f"s3://b/{name}.png" for name in names]),
        captions=np.array([f"a {name}" for name in names]),
        vectors=np.array([[0, 1], [0.6, 0.8], [1, 0]], dtype=np.float32),
        signed_at=np.array([1, 2, 3]),
        model=np.array("m"),
        revision=np.array("1"),
    )
    return path


def vector_of_words(request: Request, source: Source) -> Result:
    """The answer to a text: an embedding, and no image."""
    assert request.text == "a square thing"
    result = ok_result(request.id, (1.0, 0.0))
    return result.model_copy(update={"image": None, "caption": None, "source": source})


async def search(
    here: dict[str, str], *arguments: str, answers: bool = True
) -> subprocess.CompletedProcess[str]:
    settings = ProducerSettings.from_env(here)
    # The consumer reads the texts' own topic here.
    texts = settings.model_copy(update={"ingest_topic": settings.queries_topic})
    async with answering_consumer(texts, vector_of_words if answers else lambda *_: None):
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "imagelane", "search", "a", "square thing", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | here,
        )


async def test_the_nearest_comes_first(here: dict[str, str], pictures: Path) -> None:
    """Score, name and caption; or JSON."""
    lines = await search(here, "--in", str(pictures), "-n", "2")
    as_json = await search(here, "--in", str(pictures), "--json")

    assert (lines.returncode, lines.stderr) == (0, "")
    assert [line.split() for line in lines.stdout.splitlines()] == [
        ["1.000", "square.png", "a", "square"],
        ["0.600", "circle.png", "a", "circle"],
    ]
    ids = [json.loads(line)["id"] for line in as_json.stdout.splitlines()]
    assert ids == ["square", "circle", "star"]


async def test_vectors_of_another_model_are_not_compared(
    here: dict[str, str], pictures: Path
) -> None:
    """It names both models."""
    with np.load(pictures) as found:
        members = dict(found)
    np.savez(pictures, **(members | {"model": np.array("another")}))

    done = await search(here, "--in", str(pictures))

    assert (done.returncode, done.stdout) == (1, "")
    assert "another at 1, the consumer has m at 1" in done.stderr


async def test_without_an_answer_it_says_so(here: dict[str, str], pictures: Path) -> None:
    """And ends with 1."""
    done = await search(here, "--in", str(pictures), "--timeout", "1", answers=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert "is a consumer running?" in done.stderr
