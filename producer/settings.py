"""The settings of the ingestion side."""

from pydantic import Field, SecretStr

from imagelane.settings import WireSettings


class ProducerSettings(WireSettings):
    """Settings to sign, publish and read."""

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
    """Settings to create the topics: that needs no secret."""

    secret_api_key: SecretStr = Field(default=SecretStr(""), description="not used")


class StatusSettings(TopicSettings):
    """Settings of `status`; a secret, if given, verifies the last result."""

    group_id: str = Field(
        default="imagelane", min_length=1, description="group of the consumers, for what waits"
    )
