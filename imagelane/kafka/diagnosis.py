"""Why a broker refuses us: aiokafka logs the reason, and raises "no broker answers"."""

import asyncio
import ssl
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.client import security_arguments
from imagelane.kafka.security import KafkaSecurity, Mechanism, Protocol
from imagelane.kafka.settings import KafkaSettings
from imagelane.kafka.tokens import TokenUnavailable

ANSWER_SECONDS: Final = 10
_DEFAULT_PORT: Final = 9092
_OTHER_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH (x509_vfy.h)
_LOGIN: Final = (AuthenticationFailedError, SaslAuthenticationFailed)
_MECHANISM: Final = (
    UnsupportedSaslMechanismError,
    AuthenticationMethodNotSupported,
)


def no_broker(settings: KafkaSettings) -> str:
    """Return the line for brokers that do not answer at all."""
    brokers = ", ".join(settings.bootstrap_servers)
    return (
        f"broker: none answers at {brokers}; is Kafka up, and are BOOTSTRAP_SERVERS and "
        f"KAFKA_SECURITY_PROTOCOL ({settings.kafka_security_protocol}) right?"
    )


async def refusal_of(settings: KafkaSettings) -> FatalError | None:
    """Open one connection and return why it is refused; None if it opens, or no broker answers.

    The error is `TLS` (authority, name or certificate) or `ACCESS` (user, password or token).
    """
    security = settings.kafka_security
    if security.protocol is Protocol.PLAINTEXT:
        return None  # without TLS and login there is nothing to refuse
    for server in settings.bootstrap_servers:
        host, port = _host_and_port(server)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await create_conn(
                    host, port, client_id="imagelane", **security_arguments(security)
                )
        except (ssl.SSLError, KafkaConnectionError, TimeoutError, OSError) as exc:
            if reason := _tls_reason(exc, security):
                return FatalError(ExitCode.TLS, f"tls: {server}: {reason}")
        except (*_LOGIN, *_MECHANISM) as exc:
            return FatalError(ExitCode.ACCESS, f"access: {server}: {_login_reason(exc, security)}")
        else:
            connection.close()
            return None
    return None


async def out_of_reach(settings: KafkaSettings, client: Any) -> FatalError | None:
    """Return the error of a started client that reaches none of the nodes; None if it reaches one.

    A bootstrap address answers with the nodes' advertised addresses; all later requests go there.
    """
    nodes = client.cluster.brokers()
    for node in nodes:
        if await client.ready(node.nodeId):
            return None
    if not nodes:
        return None
    brokers = ", ".join(settings.bootstrap_servers)
    addresses = ", ".join(f"node {node.nodeId} at {node.host}:{node.port}" for node in nodes)
    return FatalError(
        ExitCode.BROKER,
        f"broker: {brokers} answers, but what it names cannot be reached from here: {addresses}; "
        "its advertised.listeners must be addresses that this machine can connect to",
    )


def _tls_reason(error: BaseException, security: KafkaSecurity) -> str | None:
    """Return the fault of TLS behind an error; None if it has another cause."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_NAME:
            return f"its certificate is not for this name: {cause.verify_message}"
        authorities = security.ca_file or "the system's authorities"
        return (
            f"its certificate cannot be trusted by {authorities}: {cause.verify_message}; "
            "KAFKA_CA_FILE names the brokers' authority"
        )
    if isinstance(cause, ssl.SSLError):
        return f"{cause.reason or cause}; does it speak TLS, and does it want KAFKA_CERT_FILE?"
    return None


def _login_reason(error: Exception, security: KafkaSecurity) -> str:
    if isinstance(error, TokenUnavailable):
        return str(error)
    if isinstance(error, _MECHANISM):
        return f"it does not take KAFKA_SASL_MECHANISM={security.mechanism}: {error}"
    if security.mechanism is Mechanism.OAUTHBEARER:
        return f"it refuses the token: {error}"
    return f"it refuses user {security.username}: {error}; is KAFKA_PASSWORD right?"


def _host_and_port(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        return server.strip("[]"), _DEFAULT_PORT
    return host.strip("[]"), int(port)
