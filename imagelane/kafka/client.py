"""How a Kafka client of this project reaches the cluster."""

from collections.abc import Sequence
from typing import Any

# New partitions, and leaders that moved while a connection was idle, are seen within this time.
METADATA_AGE_SECONDS = 5


def client_arguments(bootstrap_servers: Sequence[str], client_id: str) -> dict[str, Any]:
    """Return the arguments that every kind of aiokafka client takes."""
    return {
        "bootstrap_servers": list(bootstrap_servers),
        "client_id": client_id,
        "metadata_max_age_ms": METADATA_AGE_SECONDS * 1000,
    }
