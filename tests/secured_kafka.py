"""Apache Kafka with TLS, mutual TLS, SASL and the authorizer on, in a container.

One broker with a listener for each way in. Certificates are made here; the passwords are those of
`USERS`. The listener `ROOT` is plain, and whoever comes by it is a super user: for setting up.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trustme
from cryptography.hazmat.primitives import serialization
from testcontainers.core.container import DockerContainer

from tests.containers import KAFKA_IMAGE, SETTINGS, free_port, take_a_record

USERS: Final = {"ingestion": "ingestion-password", "consumer": "consumer-password"}
_LISTENERS: Final = {
    # name: protocol, port in the container
    "ROOT": ("PLAINTEXT", 9092),
    "TLS": ("SSL", 9094),
    "MUTUAL": ("SSL", 9095),
    "LOGIN": ("SASL_SSL", 9096),
    "CLEAR": ("SASL_PLAINTEXT", 9097),
    "TOKEN": ("SASL_SSL", 9098),
    "OTHERNAME": ("SSL", 9099),
}
SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
CONFIGS: Final = "kafka.admin.ConfigCommand"
_PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"
_BEARER: Final = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files of clients: `ca` is the brokers' authority, the others are of other makers."""

    ca: Path
    other_ca: Path
    cert: Path
    key: Path
    stranger_cert: Path
    stranger_key: Path


@dataclass(slots=True, kw_only=True)
class SecuredKafka:
    """A running broker: `ports` by listener."""

    container: DockerContainer
    ports: dict[str, int]
    files: Files
    name: str = field(default="apache")

    def at(self, listener: str) -> str:
        """Return the bootstrap address of a listener."""
        return f"localhost:{self.ports[listener]}"

    @property
    def bootstrap(self) -> str:
        """The address by which everything is allowed."""
        return self.at("ROOT")

    @property
    def acls_command(self) -> str:
        """The command that manages rights, for `KAFKA_ACLS` of deploy/kafka-acls.sh."""
        tool = "/opt/kafka/bin/kafka-run-class.sh org.apache.kafka.tools.AclCommand"
        return f"docker exec {self.container.get_container_id()} {tool}"

    def run_class(self, name: str, *arguments: str) -> str:
        """Run one of Kafka's tools, by its class, against the listener `ROOT`."""
        command = ["docker", "exec", self.container.get_container_id()]
        command += ["/opt/kafka/bin/kafka-run-class.sh", name]
        command += ["--bootstrap-server", f"localhost:{self.ports['ROOT']}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def secured_kafka(folder: Path, jwks: dict[str, object], audience: str) -> Iterator[SecuredKafka]:
    """Start the broker; `jwks` are the keys that sign tokens for `audience`."""
    files = _certificates(folder)
    (folder / "jwks.json").write_text(json.dumps(jwks))
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)
    ports = {name: free_port() for name in _LISTENERS}
    container = DockerContainer(KAFKA_IMAGE)
    for name, value in _settings(ports, audience).items():
        container.with_env(f"KAFKA_{name}", value)
    container.with_env(
        "KAFKA_OPTS",
        "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file:///etc/kafka/own/jwks.json",
    )
    container.with_volume_mapping(str(folder), "/etc/kafka/own", "ro")
    for name, (_, inside) in _LISTENERS.items():
        # ROOT is the same port inside and outside, so that Kafka's tools can follow what it says.
        container.with_bind_ports(ports["ROOT"] if name == "ROOT" else inside, ports[name])
    with container:
        kafka = SecuredKafka(container=container, ports=ports, files=files)
        asyncio.run(take_a_record(kafka.bootstrap))
        for user, password in USERS.items():
            for mechanism in SCRAM:  # the broker takes one of a user at once
                what = ["--alter", "--entity-type", "users", "--entity-name", user]
                kafka.run_class(
                    CONFIGS, *what, "--add-config", f"{mechanism}=[password={password}]"
                )
        yield kafka


def _settings(ports: dict[str, int], audience: str) -> dict[str, str]:
    inside = {n: ports[n] if n == "ROOT" else port for n, (_, port) in _LISTENERS.items()}
    protocols = ",".join(f"{name}:{protocol}" for name, (protocol, _) in _LISTENERS.items())
    advertised = {name: f"localhost:{port}" for name, port in ports.items()}
    # Its certificate is for `localhost`, and the client is told of an address.
    advertised["OTHERNAME"] = f"127.0.0.1:{ports['OTHERNAME']}"
    settings = dict(SETTINGS) | {
        "LISTENERS": ",".join(f"{n}://:{p}" for n, p in inside.items()) + ",CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": ",".join(f"{n}://{at}" for n, at in advertised.items()),
        "LISTENER_SECURITY_PROTOCOL_MAP": f"{protocols},CONTROLLER:PLAINTEXT",
        "INTER_BROKER_LISTENER_NAME": "ROOT",
        "AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "SUPER_USERS": "User:ANONYMOUS",
        "ALLOW_EVERYONE_IF_NO_ACL_FOUND": "false",
        "SSL_PRINCIPAL_MAPPING_RULES": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
    }
    for name, (protocol, _) in _LISTENERS.items():
        listener = f"LISTENER_NAME_{name}_"
        if "SSL" in protocol:
            settings[listener + "SSL_KEYSTORE_TYPE"] = "PEM"
            settings[listener + "SSL_KEYSTORE_LOCATION"] = "/etc/kafka/own/broker.pem"
            settings[listener + "SSL_TRUSTSTORE_TYPE"] = "PEM"
            settings[listener + "SSL_TRUSTSTORE_LOCATION"] = "/etc/kafka/own/ca.pem"
    settings["LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH"] = "required"
    for name in ("TLS", "OTHERNAME"):
        settings[f"LISTENER_NAME_{name}_SSL_CLIENT_AUTH"] = "none"
    for name in ("LOGIN", "CLEAR"):
        listener = f"LISTENER_NAME_{name}_"
        settings[listener + "SASL_ENABLED_MECHANISMS"] = ",".join(("PLAIN", *SCRAM))
        users = " ".join(f'user_{user}="{password}"' for user, password in USERS.items())
        settings[listener + "PLAIN_SASL_JAAS_CONFIG"] = f"{_PLAIN} required {users};"
        for mechanism in SCRAM:
            key = f"{listener}{mechanism.replace('-', '___')}_SASL_JAAS_CONFIG"
            settings[key] = f"{_SCRAM} required;"
    handler = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"
    settings |= {
        "LISTENER_NAME_TOKEN_SASL_ENABLED_MECHANISMS": "OAUTHBEARER",
        "LISTENER_NAME_TOKEN_OAUTHBEARER_SASL_JAAS_CONFIG": f"{_BEARER} required;",
        "LISTENER_NAME_TOKEN_OAUTHBEARER_SASL_SERVER_CALLBACK_HANDLER_CLASS": handler,
        "LISTENER_NAME_TOKEN_OAUTHBEARER_CONNECTIONS_MAX_REAUTH_MS": "3600000",
        "LISTENER_NAME_TOKEN_SASL_OAUTHBEARER_JWKS_ENDPOINT_URL": "file:///etc/kafka/own/jwks.json",
        "LISTENER_NAME_TOKEN_SASL_OAUTHBEARER_EXPECTED_AUDIENCE": audience,
        "LISTENER_NAME_TOKEN_SASL_OAUTHBEARER_CLOCK_SKEW_SECONDS": "0",
    }
    return settings


def _certificates(folder: Path) -> Files:
    """Write the PEM files of broker and clients into the folder."""
    authority, other = trustme.CA(), trustme.CA()
    broker = authority.issue_cert("localhost")
    client = authority.issue_cert("consumer.example", common_name="consumer")
    stranger = other.issue_cert("stranger.example")
    files = Files(
        ca=folder / "ca.pem",
        other_ca=folder / "other-ca.pem",
        cert=folder / "client.pem",
        key=folder / "client.key",
        stranger_cert=folder / "stranger.pem",
        stranger_key=folder / "stranger.key",
    )
    authority.cert_pem.write_to_path(str(files.ca))
    other.cert_pem.write_to_path(str(files.other_ca))
    for leaf, cert, key in (
        (client, files.cert, files.key),
        (stranger, files.stranger_cert, files.stranger_key),
    ):
        leaf.cert_chain_pems[0].write_to_path(str(cert))
        leaf.private_key_pem.write_to_path(str(key))
    # Kafka reads the key first, and as PKCS #8 only.
    chain = b"".join(pem.bytes() for pem in broker.cert_chain_pems)
    (folder / "broker.pem").write_bytes(_pkcs8(broker.private_key_pem.bytes()) + chain)
    return files


def _pkcs8(key_pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(key_pem, password=None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
