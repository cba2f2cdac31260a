"""How a Kafka client of this project reaches the cluster."""

from typing import Any

from imagelane.kafka.settings import KafkaSettings

# New partitions, and leaders that moved while a connection was idle, are seen within this time.
METADATA_AGE_SECONDS = 5


def client_arguments(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the arguments that every kind of aiokafka client takes, its security among them.

    Raises:
        FatalError: `SETTINGS`: a certificate or the token provider cannot be used.
    """
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": client_id,
        "metadata_max_age_ms": METADATA_AGE_SECONDS * 1000,
        **settings.kafka_security.arguments,
    }
