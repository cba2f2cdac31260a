"""Searches through Kafka: do words find their pictures, and how long does an answer take.

`python -m benchmarks.search`: the embedded broker, a consumer with the tiny checkpoints on the CPU,
held-out drawings as in the model card. Measured are the share of captions that find their own
picture first among 64; the time from publishing a text to its verified result, with the tower
loaded and nothing else to do; and the same while 10,000 pictures wait in the ingest topic. Exit
code 1 if one of the three is worse than promised.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.served import served
from examples.models.dataset import draw_jpegs
from examples.models.evaluate import GROUP, HELD_OUT_SEED, PROMISE, groups_of_different
from schemas import Request, Task
from tests.conftest import Topics
from tests.request_client import Client

PROMISED_SEARCH_SECONDS = 0.3  # p50
PROMISED_BEHIND_BACKLOG_SECONDS = 1.0
SEARCHES = 50
BEHIND_BACKLOG = 20
TEXT = "two green stars on a gray background"


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="searches through Kafka")
    parser.add_argument("--pictures", type=int, default=2000, help="held-out drawings")
    parser.add_argument("--backlog", type=int, default=10_000, help="pictures that wait")
    arguments = parser.parse_args()
    return int(not asyncio.run(measure(arguments.pictures, arguments.backlog)))


async def measure(pictures: int, backlog: int) -> bool:
    """Return whether all that was promised is held."""
    with tempfile.TemporaryDirectory(prefix="imagelane-search-") as name:
        folder = Path(name)
        async with served(folder) as (client, topics):
            held = await search(client, topics, folder, pictures)
            held &= await time_searches(client, topics)
            held &= await time_behind(client, topics, folder, backlog)
    return held


async def search(client: Client, topics: Topics, folder: Path, pictures: int) -> bool:
    """Embed pictures and captions, and count the captions that find their own picture first."""
    drawn = list(draw_jpegs(HELD_OUT_SEED, 0, pictures))
    for number, (_, jpeg) in enumerate(drawn):
        (folder / f"{number}.jpg").write_bytes(jpeg)
    captions = [scene.caption for scene, _ in drawn]
    images, words = ([f"{kind}{n}" for n in range(pictures)] for kind in ("picture", "text"))
    await client.send(topics.ingest, *(_picture(folder, n, images[n]) for n in range(pictures)))
    texts = zip(words, captions, strict=True)
    await client.send(topics.queries, *(Request(id=id, text=text) for id, text in texts))
    await client.wait_for(*images, *words)
    vectors = [_vectors(client, names) for names in (images, words)]
    found = total = 0
    for group in groups_of_different(captions, GROUP):
        nearest = (vectors[1][group] @ vectors[0][group].T).argmax(1)
        found += int((nearest == np.arange(GROUP)).sum())
        total += GROUP
    share = found / total
    print(
        f"captions that find their own picture first among {GROUP}, through Kafka: {share:.1%} of "
        f"{total:,} (promised: {PROMISE:.0%} at least)",
        flush=True,
    )
    return share >= PROMISE


async def time_searches(client: Client, topics: Topics) -> bool:
    """Time searches one after the other, with nothing else to do."""
    seconds = [await _time(client, topics, f"search{n}") for n in range(SEARCHES)]
    p50 = statistics.median(seconds)
    print(
        f"a text's result, tower loaded: p50 {p50 * 1000:.0f} ms, most "
        f"{max(seconds) * 1000:.0f} ms of {SEARCHES} (promised: p50 under "
        f"{PROMISED_SEARCH_SECONDS * 1000:.0f} ms)",
        flush=True,
    )
    return p50 < PROMISED_SEARCH_SECONDS


async def time_behind(client: Client, topics: Topics, folder: Path, backlog: int) -> bool:
    """Time searches while pictures wait that were there first."""
    names = [f"waiting{n}" for n in range(backlog)]
    await client.send(topics.ingest, *(_picture(folder, n % 100, names[n]) for n in range(backlog)))
    await client.wait_for(names[0])
    seconds = [await _time(client, topics, f"behind{n}") for n in range(BEHIND_BACKLOG)]
    left = backlog - sum(name in client.results for name in names)
    print(
        f"the same while {left:,} to {backlog:,} pictures wait: p50 "
        f"{statistics.median(seconds) * 1000:.0f} ms, most {max(seconds) * 1000:.0f} ms of "
        f"{BEHIND_BACKLOG} (promised: under {PROMISED_BEHIND_BACKLOG_SECONDS * 1000:.0f} ms)",
        flush=True,
    )
    return left > 0 and max(seconds) < PROMISED_BEHIND_BACKLOG_SECONDS


async def _time(client: Client, topics: Topics, name: str) -> float:
    start = time.perf_counter()
    await client.send(topics.queries, Request(id=name, text=TEXT))
    await client.wait_for(name)
    return time.perf_counter() - start


def _picture(folder: Path, number: int, name: str) -> Request:
    uri = (folder / f"{number}.jpg").as_uri()
    return Request(id=name, image={"uri": uri}, tasks=(Task.EMBED,))  # type: ignore[arg-type]


def _vectors(client: Client, names: list[str]) -> "np.ndarray[tuple[int, int]]":
    embeddings = [client.results[name].embedding for name in names]
    return np.array([e.vector() for e in embeddings if e], np.float32)


if __name__ == "__main__":
    sys.exit(main())
