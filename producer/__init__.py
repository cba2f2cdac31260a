"""The ingestion side: sign image requests, publish them, and read what becomes of them.

async with Publisher(ProducerSettings.from_env(os.environ), results=True) as publisher:
    published = await publisher.publish(image_request("s3://pictures/cat.jpg"))
    outcome = await publisher.result(published, timeout_seconds=60)
print(outcome.status, outcome.result)

async with ResultReader(settings, group_id="indexer") as reader:
    async for read in reader:
        print(read.id, read.result.embedding and read.result.embedding.vector())
"""

from producer.errors import (
    ExitCode,
    FatalError,
    ImagelaneError,
    InvalidRequest,
    NotOpen,
    ResultTimeout,
    TooLarge,
)
from producer.ids import new_id
from producer.outcomes import Outcome
from producer.publisher import Keyed, Published, Publisher, image_request
from producer.results import LatestResults, ReadResult, ResultReader
from producer.settings import ProducerSettings

__all__ = [
    "ExitCode",
    "FatalError",
    "ImagelaneError",
    "InvalidRequest",
    "Keyed",
    "LatestResults",
    "NotOpen",
    "Outcome",
    "ProducerSettings",
    "Published",
    "Publisher",
    "ReadResult",
    "ResultReader",
    "ResultTimeout",
    "TooLarge",
    "image_request",
    "new_id",
]
