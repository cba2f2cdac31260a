"""The ingestion side: sign image requests, publish them, and wait for what becomes of them.

async with Publisher(ProducerSettings.from_env(os.environ), results=True) as publisher:
    published = await publisher.publish(image_request("s3://pictures/cat.jpg"))
    outcome = await publisher.result(published, timeout_seconds=60)
print(outcome.status, outcome.result)
"""

from producer.ids import new_id
from producer.outcomes import Outcome
from producer.publisher import Keyed, Published, Publisher, TooLarge, image_request
from producer.settings import ProducerSettings

__all__ = [
    "Keyed",
    "Outcome",
    "ProducerSettings",
    "Published",
    "Publisher",
    "TooLarge",
    "image_request",
    "new_id",
]
