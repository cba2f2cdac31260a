"""The ingestion side: sign image requests, publish them, and wait for what becomes of them."""

from producer.awaiting import Outcome
from producer.ids import new_id
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
