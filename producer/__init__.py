"""The ingestion side: sign image requests, publish them, and read what becomes of them.

async with Publisher(ProducerSettings.from_env(os.environ), results=True) as publisher:
    outcome = await publisher.process("s3://pictures/cat.jpg")
print(outcome.status, outcome.result)

async with ResultReader(settings, group_id="indexer") as reader:
    async for read in reader:
        print(read.id, read.result.embedding and read.result.embedding.vector())
"""

# ruff: noqa: E402
from imagelane.namesakes import Shadowed, check_namesakes

check_namesakes()  # before anything looks for a name that another `schemas` does not have

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
from producer.publisher import Published, Publisher
from producer.requests import Keyed, image_request, text_request
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
    "Shadowed",
    "TooLarge",
    "image_request",
    "new_id",
    "text_request",
]
