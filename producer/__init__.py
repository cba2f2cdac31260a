"""The ingestion side: sign image requests, publish them, and read their results.

async with Publisher(ProducerSettings.from_env(os.environ), results=True) as publisher:
    outcome = await publisher.process("s3://pictures/cat.jpg")
print(outcome.status, outcome.result)

async with ResultReader(settings, group_id="indexer") as reader:
    async for read in reader:
        print(read.id, read.result.embedding and read.result.embedding.vector())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from imagelane.namesakes import Shadowed, check_namesakes

check_namesakes()  # before an import from another `schemas` fails

if TYPE_CHECKING:
    from imagelane.exits import ExitCode, FatalError, ImagelaneError
    from producer.errors import (
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

# Imported at first use: `python -m producer` imports this file before it can handle Ctrl-C, and the
# Kafka client takes a third of a second.
_MODULES: Final = {
    "ExitCode": "imagelane.exits",
    "FatalError": "imagelane.exits",
    "ImagelaneError": "imagelane.exits",
    "InvalidRequest": "producer.errors",
    "Keyed": "producer.requests",
    "LatestResults": "producer.results",
    "NotOpen": "producer.errors",
    "Outcome": "producer.outcomes",
    "ProducerSettings": "producer.settings",
    "Published": "producer.publisher",
    "Publisher": "producer.publisher",
    "ReadResult": "producer.results",
    "ResultReader": "producer.results",
    "ResultTimeout": "producer.errors",
    "TooLarge": "producer.errors",
    "image_request": "producer.requests",
    "new_id": "producer.ids",
    "text_request": "producer.requests",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
