"""`python -m benchmarks.gallery`: a gallery of 100,000 results: its start, its memory, a search.

Signed results of 512 numbers are written to the embedded broker, then the gallery reads them as it
does at its start. Searches are of the matrix alone: the words' vector comes from the consumer.
"""

import argparse
import asyncio
import json
import platform
import resource
import secrets
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from aiokafka import AIOKafkaProducer

from examples.processes import running_broker
from producer.gallery.collection import Model
from producer.gallery.run import running_gallery
from producer.gallery.settings import GallerySettings
from producer.topics import ensure_topics, topic_plans
from schemas import Signer
from schemas.headers import CONTENT_TYPE, JSON_CONTENT_TYPE

DIM = 512
SEARCHES = 50


def vectors(count: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    chance = np.random.default_rng(1)
    for _ in range(count):
        vector = chance.normal(size=DIM).astype("<f4")
        yield vector / np.linalg.norm(vector)


async def write_results(settings: GallerySettings, count: int) -> None:
    signer = Signer(settings.keys, settings.results_topic)
    async with AIOKafkaProducer(
        bootstrap_servers=list(settings.bootstrap_servers), linger_ms=20, max_batch_size=262_144
    ) as producer:
        for number, vector in enumerate(vectors(count)):
            id = f"r{number}"
            value = json.dumps(
                {
                    "version": 1,
                    "id": id,
                    "status": "ok",
                    "image": {
                        "uri": f"file:///pictures/{number:06}.jpg",
                        "sha256": "0" * 64,
                        "width": 4000,
                        "height": 3000,
                        "format": "JPEG",
                    },
                    "embedding": {
                        "model": "clip",
                        "revision": "1",
                        "dim": DIM,
                        "encoding": "base64",
                        "data": b64encode(vector.tobytes()).decode(),
                    },
                    "caption": {"model": "blip", "revision": "1", "text": f"picture {number}"},
                    "timing_ms": {"fetch": 1.0, "decode": 2.0, "embed": 3.0, "total": 6.0},
                    "source": {"topic": "image.ingest", "partition": 0, "offset": number},
                }
            ).encode()
            signature = signer.sign(id=id, timestamp=int(time.time()), key=id.encode(), value=value)
            headers = [(CONTENT_TYPE, JSON_CONTENT_TYPE), *signature]
            await producer.send(settings.results_topic, value, id.encode(), headers=headers)
            if number % 1000 == 999:
                await asyncio.sleep(0)
        await producer.flush()


async def measure(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with running_broker(Path(folder)) as broker:
            environment = {
                "BOOTSTRAP_SERVERS": broker.address,
                "SECRET_API_KEY": secrets.token_hex(32),
                "GALLERY_PORT": "0",
            }
            settings = GallerySettings.from_env(environment)
            await ensure_topics(settings, topic_plans(settings, partitions=1, replication=None))
            await write_results(settings, count)
            start = time.perf_counter()
            async with running_gallery(settings) as gallery:
                await gallery.feed.loaded.wait()
                started = time.perf_counter() - start
                assert gallery.collection.counts["ok"] == count
                times = []
                for asked in vectors(SEARCHES):
                    begin = time.perf_counter()
                    found = gallery.collection.nearest(
                        Model("clip", "1"), tuple(asked.tolist()), 24
                    )
                    times.append(time.perf_counter() - begin)
                    assert len(found) == 24
    return {
        "results": count,
        "start_seconds": round(started, 1),
        "search_p50_ms": round(median(times) * 1000, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=100_000)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.results)) | {"machine": platform.processor()}))


if __name__ == "__main__":
    main()
