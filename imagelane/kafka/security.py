"""TLS and login of Kafka clients: one value for every client of a process."""

import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from imagelane.exits import ExitCode, FatalError


class Protocol(StrEnum):
    """Kafka's `security.protocol`."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def encrypts(self) -> bool:
        """Whether the connection is TLS."""
        return self in (Protocol.SSL, Protocol.SASL_SSL)

    @property
    def authenticates(self) -> bool:
        """Whether the client logs in by SASL."""
        return self in (Protocol.SASL_PLAINTEXT, Protocol.SASL_SSL)


class Mechanism(StrEnum):
    """Kafka's `sasl.mechanism`, as far as it is supported."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEndpoint:
    """An endpoint of OAuth's client credentials grant (RFC 6749, section 4.4)."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class KafkaSecurity:
    """The security of every Kafka client of this process. Secrets are not in its `repr`.

    Two are never equal: each has its own tokens, and tokens belong to one event loop.

    `token_provider` names a function, `package.module:function`; it wins over `token_endpoint`.
    """

    protocol: Protocol = Protocol.PLAINTEXT
    mechanism: Mechanism = Mechanism.PLAIN
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    token_endpoint: TokenEndpoint | None = None
    token_provider: str | None = None

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context: it trusts the system's authorities, or those of `ca_file` alone.

        Raises:
            FatalError: `SETTINGS`: a file cannot be used.
        """
        if not self.protocol.encrypts:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as exc:  # SSLError is one
            raise _bad_file("KAFKA_CA_FILE", self.ca_file, exc) from exc
        if self.cert_file:
            try:
                context.load_cert_chain(
                    self.cert_file, self.key_file, lambda: self.key_password or ""
                )
            except OSError as exc:
                files = f"{self.cert_file}, {self.key_file}"
                raise _bad_file("KAFKA_CERT_FILE, KAFKA_KEY_FILE", files, exc) from exc
        return context


def _bad_file(setting: str, path: str | None, exc: OSError) -> FatalError:
    reason = getattr(exc, "reason", None) or exc.strerror or "no PEM, or another password"
    return FatalError(ExitCode.SETTINGS, f"settings: {setting}: {path}: {reason}")
