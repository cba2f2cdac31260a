"""The arguments of every Kafka client: addresses, name, security."""

from functools import cache
from typing import Any

from imagelane.kafka.security import KafkaSecurity, Mechanism, Protocol
from imagelane.kafka.settings import KafkaSettings
from imagelane.kafka.tokens import open_provider

# A client sees new partitions and moved leaders within this time, even on idle connections.
METADATA_AGE_SECONDS = 5


def client_arguments(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the arguments of every kind of aiokafka client; raises as `security_arguments`."""
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": client_id,
        "metadata_max_age_ms": METADATA_AGE_SECONDS * 1000,
        **security_arguments(settings.kafka_security),
    }


@cache
def security_arguments(security: KafkaSecurity) -> dict[str, Any]:
    """Return the security of aiokafka's clients; all share one TLS context and one token.

    Raises:
        FatalError: `SETTINGS`: a file or the token provider cannot be used.
    """
    if security.protocol is Protocol.PLAINTEXT:
        return {}
    arguments: dict[str, Any] = {
        "security_protocol": security.protocol.value,
        "ssl_context": security.ssl_context,
    }
    if not security.protocol.authenticates:
        return arguments
    arguments["sasl_mechanism"] = security.mechanism.value
    if security.mechanism is Mechanism.OAUTHBEARER:
        arguments["sasl_oauth_token_provider"] = open_provider(security)
    else:
        arguments["sasl_plain_username"] = security.username
        arguments["sasl_plain_password"] = security.password
    return arguments
