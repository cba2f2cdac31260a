"""The settings of the connection to Kafka, for both sides and every client."""

from functools import cached_property
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from imagelane.kafka.security import KafkaSecurity, Mechanism, Protocol, TokenEndpoint


def split(value: object) -> object:
    """Return the parts of a comma-separated text, without the empty ones."""
    return (
        [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
    )


Broker = Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$")]


class KafkaSettings(BaseModel):
    """The brokers' addresses, and TLS and login for them."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    bootstrap_servers: Annotated[tuple[Broker, ...], BeforeValidator(split)] = Field(
        default=("localhost:9092",), min_length=1, description="Kafka brokers, host:port, by comma"
    )
    kafka_security_protocol: Protocol = Field(
        default=Protocol.PLAINTEXT, description="PLAINTEXT, SSL, SASL_SSL or SASL_PLAINTEXT"
    )
    kafka_sasl_mechanism: Mechanism = Field(
        default=Mechanism.PLAIN,
        description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, for SASL_*",
    )
    kafka_username: str | None = Field(default=None, description="user of PLAIN and SCRAM")
    kafka_password: SecretStr | None = Field(default=None, description="password of KAFKA_USERNAME")
    kafka_ca_file: str | None = Field(
        default=None, description="PEM file of the brokers' authorities; none: the system's"
    )
    kafka_cert_file: str | None = Field(
        default=None, description="PEM file of our own certificate, for mutual TLS"
    )
    kafka_key_file: str | None = Field(
        default=None, description="PEM file of its key; none: it is in KAFKA_CERT_FILE"
    )
    kafka_key_password: SecretStr | None = Field(
        default=None, description="password of an encrypted KAFKA_KEY_FILE"
    )
    kafka_oauth_token_url: str | None = Field(
        default=None, description="endpoint that gives OAUTHBEARER's tokens; `https:`"
    )
    kafka_oauth_client_id: str | None = Field(
        default=None, description="client id at KAFKA_OAUTH_TOKEN_URL"
    )
    kafka_oauth_client_secret: SecretStr | None = Field(
        default=None, description="secret of KAFKA_OAUTH_CLIENT_ID"
    )
    kafka_oauth_scope: str | None = Field(default=None, description="scope that a token is for")
    kafka_token_provider: str | None = Field(
        default=None,
        description="`package.module:function` that gives OAUTHBEARER's tokens instead",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        faults = [fault for fault in (self._login_fault(), self._tls_fault()) if fault]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _login_fault(self) -> str | None:
        if not self.kafka_security_protocol.authenticates:
            if self.kafka_username or self.kafka_oauth_token_url or self.kafka_token_provider:
                return (
                    "KAFKA_SECURITY_PROTOCOL must be SASL_SSL (or SASL_PLAINTEXT) where a user or "
                    "a token is given; else nobody would log in"
                )
            return None
        if self.kafka_sasl_mechanism is not Mechanism.OAUTHBEARER:
            if self.kafka_username and self.kafka_password:
                return None
            return f"{self.kafka_sasl_mechanism} needs KAFKA_USERNAME and KAFKA_PASSWORD"
        if self.kafka_token_provider:
            return self._provider_fault(self.kafka_token_provider)
        url = self.kafka_oauth_token_url
        if not (url and self.kafka_oauth_client_id and self.kafka_oauth_client_secret):
            return (
                "OAUTHBEARER needs KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID and "
                "KAFKA_OAUTH_CLIENT_SECRET, or KAFKA_TOKEN_PROVIDER"
            )
        if not _is_private(url):
            return "KAFKA_OAUTH_TOKEN_URL must be https:, since the client secret goes there"
        return None

    def _provider_fault(self, provider: str) -> str | None:
        module, _, function = provider.partition(":")
        try:
            found = bool(function) and find_spec(module) is not None
        except (ImportError, ValueError):
            found = False
        return None if found else f"KAFKA_TOKEN_PROVIDER: {provider}: no such module:function"

    def _tls_fault(self) -> str | None:
        given = self.kafka_ca_file or self.kafka_cert_file or self.kafka_key_file
        if given and not self.kafka_security_protocol.encrypts:
            return "KAFKA_SECURITY_PROTOCOL must be SSL or SASL_SSL where a certificate is given"
        if self.kafka_key_file and not self.kafka_cert_file:
            return "KAFKA_KEY_FILE needs KAFKA_CERT_FILE"
        return None

    @cached_property
    def kafka_security(self) -> KafkaSecurity:
        """The security of every client; one object, so that all share one token."""
        endpoint = None
        if self.kafka_oauth_token_url and self.kafka_oauth_client_secret:
            endpoint = TokenEndpoint(
                url=self.kafka_oauth_token_url,
                client_id=self.kafka_oauth_client_id or "",
                client_secret=self.kafka_oauth_client_secret.get_secret_value(),
                scope=self.kafka_oauth_scope,
            )
        return KafkaSecurity(
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_username,
            password=_plain(self.kafka_password),
            ca_file=self.kafka_ca_file,
            cert_file=self.kafka_cert_file,
            key_file=self.kafka_key_file,
            key_password=_plain(self.kafka_key_password),
            token_endpoint=endpoint,
            token_provider=self.kafka_token_provider,
        )


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _is_private(url: str) -> bool:
    """Return whether nobody on the way to `url` can read a request."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    try:
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
