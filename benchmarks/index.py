"""`python -m benchmarks.index`: 100,000 results into PostgreSQL, and searches among them.

Signed results of 512 numbers are written to the embedded broker, `imagelane index` reads them into
a PostgreSQL of its own (with pgvector, from the wheel of the tests), and random vectors are
searched there, without an index and with one of HNSW.
"""

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from statistics import median

from benchmarks.gallery import DIM, vectors, write_results
from examples.processes import running_broker
from producer.database.nearest import nearest_in_database
from producer.database.schema import Tables
from producer.database.settings import DatabaseSettings
from producer.gallery.settings import GallerySettings
from producer.topics import ensure_topics, topic_plans
from schemas import Embedding
from tests.postgres import postgres, rows

SEARCHES = 30
TABLE = "imagelane_results"
HNSW = (
    f"CREATE INDEX ON {TABLE} USING hnsw ((embedding::vector({DIM})) vector_cosine_ops)"
    " WHERE embedding_model = 'clip' AND embedding_revision = '1'"
)


async def searched_ms(settings: DatabaseSettings) -> float:
    """Return the median of some searches, each with a connection of its own."""
    taken = []
    for vector in vectors(SEARCHES):
        data = b64encode(vector.tobytes()).decode()
        embedding = Embedding(model="clip", revision="1", dim=DIM, encoding="base64", data=data)
        start = time.perf_counter()
        found = await nearest_in_database(settings, Tables(TABLE), embedding, 10)
        taken.append((time.perf_counter() - start) * 1000)
        assert len(found) == 10
    return median(taken)


async def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        async with running_broker(Path(folder)) as broker:
            environment = {
                "BOOTSTRAP_SERVERS": broker.address,
                "SECRET_API_KEY": secrets.token_hex(32),
                "DATABASE_URL": server.new_database(),
            }
            settings = DatabaseSettings.from_env(environment)
            await ensure_topics(settings, topic_plans(settings, partitions=1, replication=None))
            await write_results(GallerySettings.from_env(environment), count)
            start = time.perf_counter()
            await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "imagelane", "index"],
                env={**os.environ, **environment},
                check=True,
            )
            seconds = time.perf_counter() - start
            print(f"{count} results in {seconds:.1f} s, {count / seconds:.0f}/s with the start")
            print(f"a search, every vector looked at: {await searched_ms(settings):.1f} ms")
            start = time.perf_counter()
            await asyncio.to_thread(rows, environment["DATABASE_URL"], HNSW)
            print(f"an HNSW index: {time.perf_counter() - start:.1f} s")
            print(f"a search by it: {await searched_ms(settings):.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="results in PostgreSQL")
    parser.add_argument("--count", type=int, default=100_000)
    asyncio.run(measure(parser.parse_args().count))
