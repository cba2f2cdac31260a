"""The settings of the ingestion side: the wire's, and how long it waits for the brokers."""

from pydantic import Field, SecretStr

from imagelane.settings import WireSettings


class ProducerSettings(WireSettings):
    """What it takes to sign and to publish."""

    broker_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="longest wait for the brokers to answer, or to acknowledge a record",
    )
    redrive_max_age_seconds: float = Field(
        default=7 * 86_400,
        gt=0,
        description="oldest signature that `redrive` renews",
    )


class TopicSettings(ProducerSettings):
    """What it takes to create the topics: whoever may do that need not be able to sign."""

    secret_api_key: SecretStr = Field(default=SecretStr(""), description="not used")


class StatusSettings(TopicSettings):
    """What it takes to see how far the consumers are; the secret verifies the last result."""

    group_id: str = Field(
        default="imagelane", min_length=1, description="group of the consumers, for what waits"
    )
