"""Apache Kafka's own image under testcontainers, whose KafkaContainer starts only Confluent's."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

# testcontainers reads these once, when it is imported. Ryuk, its clean-up helper, is one more image
# to pull, and the fixtures remove what they start. docker_host: ports on localhost, always.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
os.environ.setdefault("TC_POOLING_INTERVAL", "0.1")

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from testcontainers.core.container import DockerContainer

KAFKA_IMAGE = "apache/kafka:4.3.1"
START_SECONDS = 90
SETTINGS = {
    "NODE_ID": "1",
    "PROCESS_ROLES": "broker,controller",
    "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "LISTENERS": "OUTSIDE://:9092,INSIDE://:19092,CONTROLLER://:9093",
    "LISTENER_SECURITY_PROTOCOL_MAP": "OUTSIDE:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "INTER_BROKER_LISTENER_NAME": "INSIDE",
    "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "OFFSETS_TOPIC_NUM_PARTITIONS": "5",
    "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "TRANSACTION_STATE_LOG_NUM_PARTITIONS": "5",
    "TRANSACTION_STATE_LOG_MIN_ISR": "1",
    # Kafka looks for timed-out transactions every 10 s; the tests of them would wait as long.
    "TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "500",
    "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "GROUP_MIN_SESSION_TIMEOUT_MS": "500",
    # After a kill the controller waits this long for the dead broker: 9 s is the default.
    "BROKER_SESSION_TIMEOUT_MS": "3000",
    "BROKER_HEARTBEAT_INTERVAL_MS": "500",
}


class ApacheKafka:
    """One broker in a container, on a port of this machine that stays over a restart."""

    name = "apache"

    def __init__(self, container: DockerContainer, port: int, behind_proxy_port: int = 0) -> None:
        self._container = container
        self.bootstrap = f"localhost:{port}"
        self.behind_proxy_port = behind_proxy_port

    @classmethod
    @contextmanager
    def running(cls, proxied_port: int = 0) -> Iterator[Self]:
        """Start a broker; at the end remove it and its data, whatever happened.

        With `proxied_port` it has one more address, which it advertises there and has at
        `behind_proxy_port`: whoever comes that way stays on it.
        """
        # Ours, as a port of Docker's choice changes at a restart.
        port, behind = free_port(), free_port()
        container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
        settings, advertised = (
            dict(SETTINGS),
            f"OUTSIDE://localhost:{port},INSIDE://localhost:19092",
        )
        if proxied_port:
            container.with_bind_ports(9094, behind)
            settings["LISTENERS"] += ",PROXIED://:9094"
            settings["LISTENER_SECURITY_PROTOCOL_MAP"] += ",PROXIED:PLAINTEXT"
            advertised += f",PROXIED://127.0.0.1:{proxied_port}"
        for name, value in settings.items():
            container.with_env(f"KAFKA_{name}", value)
        container.with_env("KAFKA_ADVERTISED_LISTENERS", advertised)
        with container:
            kafka = cls(container, port, behind)
            kafka.wait_until_ready()
            yield kafka

    def stop(self) -> None:
        """Shut the broker down cleanly; its data stays. Blocks until it is down."""
        self._container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        """End the broker as a crash does; its data stays."""
        self._container.get_wrapped_container().kill()

    @property
    def pid(self) -> int:
        """The broker's process, as this machine numbers it."""
        container = self._container.get_wrapped_container()
        container.reload()
        return int(container.attrs["State"]["Pid"])

    def start(self) -> None:
        """Start the broker again, on the same port. Blocks until it takes records."""
        self._container.get_wrapped_container().start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Block until the broker answers for its topics and takes a record.

        An event loop of its own is used: from a coroutine, call this in a thread.
        """
        asyncio.run(take_a_record(self.bootstrap))

    def tool(
        self, name: str, *arguments: str, stdin: bytes = b"", timeout_seconds: float = 60
    ) -> bytes:
        """Run one of Kafka's console tools in the container and return what it prints.

        `name` as in kafka-console-consumer; the bootstrap server is given by this method.
        Raises subprocess.CalledProcessError, with what the tool said, when it fails.
        """
        return run_tool(
            self._container,
            "localhost:19092",
            name,
            *arguments,
            stdin=stdin,
            timeout_seconds=timeout_seconds,
        )


def run_tool(
    container: DockerContainer,
    bootstrap: str,
    name: str,
    *arguments: str,
    stdin: bytes,
    timeout_seconds: float,
) -> bytes:
    """Run one of Kafka's console tools in a broker's container and return what it prints.

    Raises subprocess.CalledProcessError, with what the tool said, when it fails.
    """
    command = ["docker", "exec", "-i", container.get_container_id()]
    command += [f"/opt/kafka/bin/{name}.sh", "--bootstrap-server", bootstrap]
    done = subprocess.run(
        [*command, *arguments], input=stdin, capture_output=True, timeout=timeout_seconds
    )
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, name, done.stdout, done.stderr.decode(errors="replace")
        )
    return done.stdout


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def take_a_record(bootstrap: str) -> None:
    """Wait until the cluster takes a record."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            producer = AIOKafkaProducer(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
            try:
                await producer.start()
                await producer.send_and_wait("ready", b"")
            except (KafkaError, OSError):
                await asyncio.sleep(0.2)
            else:
                return
            finally:
                await producer.stop()
