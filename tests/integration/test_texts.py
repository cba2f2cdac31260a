"""Texts through Kafka: the pictures that they find, their place before a backlog, their faults."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from examples.models.dataset import draw_jpegs
from examples.models.evaluate import GROUP, HELD_OUT_SEED, PROMISE, groups_of_different
from schemas import Request, Result, Task
from tests.conftest import EmbeddedBroker, Topics
from tests.consumer_process import PICTURES, Running, consumer_process, environment
from tests.request_client import Client

pytestmark = pytest.mark.integration

CIRCLE = (PICTURES / "large-red-circle.jpg").as_uri()


@pytest.fixture
def broker(embedded_broker: EmbeddedBroker) -> EmbeddedBroker:
    """One broker is enough: what Kafka guarantees is tried elsewhere."""
    return embedded_broker


def _text(name: str, text: str) -> Request:
    return Request(id=name, text=text)


def _picture(name: str, uri: str, *tasks: Task) -> Request:
    return Request(id=name, image={"uri": uri}, tasks=tasks or (Task.EMBED,))  # type: ignore[arg-type]


def _vectors(results: Mapping[str, Result], ids: list[str]) -> "np.ndarray[tuple[int, int]]":
    embeddings = [results[name].embedding for name in ids]
    assert all(embeddings)
    return np.array([e.vector() for e in embeddings if e], np.float32)


async def test_texts_find_their_pictures(
    broker: EmbeddedBroker, topics: Topics, secret: str, tmp_path: Path
) -> None:
    """The figure of the model card, all the way: drawings and words in, vectors out of Kafka."""
    drawn = list(draw_jpegs(HELD_OUT_SEED, 0, 330))
    captions = [scene.caption for scene, _ in drawn]
    for number, (_, jpeg) in enumerate(drawn):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg)
    pictures, texts = ([f"{kind}{n}" for n in range(len(drawn))] for kind in "pt")
    settings = environment(broker.bootstrap, topics, secret, FILE_ROOTS=str(tmp_path))
    with consumer_process(settings, tmp_path / "log"):
        async with Client(broker.bootstrap, topics, secret) as client:
            uris = [(tmp_path / f"{number}.jpg").as_uri() for number in range(len(drawn))]
            await client.send(topics.ingest, *map(_picture, pictures, uris))
            await client.send(topics.queries, *map(_text, texts, captions))
            results = await client.wait_for(*pictures, *texts)
    models = {(e.model, e.revision) for r in results.values() if (e := r.embedding)}
    assert len(models) == 1
    images, words = _vectors(results, pictures), _vectors(results, texts)
    found = total = 0
    for group in groups_of_different(captions, GROUP):
        nearest = (words[group] @ images[group].T).argmax(1)
        found += int((nearest == np.arange(GROUP)).sum())
        total += GROUP
    assert total >= 4 * GROUP
    assert found >= PROMISE * total


async def test_text_by_either_topic_is_the_same_and_comes_and_goes(
    broker: EmbeddedBroker, topics: Topics, secret: str, tmp_path: Path
) -> None:
    """One vector whatever the topic; too long is said; the tower leaves as BLIP does."""
    settings = environment(
        broker.bootstrap, topics, secret, CLIP_TEXT_IDLE_SECONDS="0", BLIP_IDLE_SECONDS="0"
    )
    with consumer_process(settings, tmp_path / "log") as consumer:
        async with Client(broker.bootstrap, topics, secret) as client:
            await client.send(topics.ingest, _text("ingest", "two green stars"))
            await client.send(topics.queries, _text("queries", "two green stars"))
            await client.send(topics.queries, _text("long", "star " * 40))
            await client.send(topics.queries, _picture("gone", f"{CIRCLE}.gone"))
            both = _picture("both", CIRCLE, Task.EMBED, Task.CAPTION)
            await client.send(topics.queries, both)
            results = await client.wait_for("ingest", "queries", "long", "gone", "both")
        _comes_and_goes(consumer, "clip text")
        _comes_and_goes(consumer, "blip")
    by_ingest, by_queries = (_vectors(results, [name]) for name in ("ingest", "queries"))
    assert (by_ingest @ by_queries.T).item() > 0.9999
    assert (results["ingest"].image, results["ingest"].source.topic) == (None, topics.ingest)
    assert results["queries"].source.topic == topics.queries
    long, gone = results["long"], results["gone"]
    assert long.error is not None
    assert (long.error.code, long.error.message, long.image) == (
        "text_too_long",
        "42 tokens; the model takes 32",
        None,
    )
    assert gone.error is not None
    assert gone.image is not None
    assert (gone.error.code, gone.image.uri) == ("not_found", f"{CIRCLE}.gone")
    assert results["both"].caption is not None


def _comes_and_goes(consumer: Running, model: str) -> None:
    for event in ("loading", "loaded", "on device", "offloaded"):
        consumer.wait_for(f"{model} {event}")


async def test_a_text_does_not_wait_behind_pictures(
    broker: EmbeddedBroker, topics: Topics, secret: str, tmp_path: Path
) -> None:
    """With a backlog in work that was there first, its result stands before the backlog's last."""
    pictures = [f"p{number}" for number in range(2000)]
    with consumer_process(environment(broker.bootstrap, topics, secret), tmp_path / "log"):
        async with Client(broker.bootstrap, topics, secret) as client:
            await client.send(topics.queries, _text("warm", "a red circle"))
            await client.wait_for("warm")
            await client.send(topics.ingest, *(_picture(name, CIRCLE) for name in pictures))
            await client.wait_for(pictures[0])
            await client.send(topics.queries, _text("text", "a red circle"))
            results = await client.wait_for("text", *pictures)
    order = list(results)
    assert order.index("text") < 1500
