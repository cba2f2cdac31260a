"""Three Kafka brokers in containers, each of which can be killed, stopped and started alone."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from testcontainers.core.container import DockerContainer

from tests.containers import KAFKA_IMAGE, SETTINGS, free_port, run_tool, take_a_record
from tests.faults.leaders import OFFSETS, leaders, pad_offsets

NODES = (1, 2, 3)
PARTITIONS_OF_OFFSETS = 3
_CLUSTER = {
    "AUTO_LEADER_REBALANCE_ENABLE": "false",  # leaders move when a test says so
    "DEFAULT_REPLICATION_FACTOR": "3",
    "MIN_INSYNC_REPLICAS": "2",
    "OFFSETS_TOPIC_REPLICATION_FACTOR": "3",
    "OFFSETS_TOPIC_NUM_PARTITIONS": str(PARTITIONS_OF_OFFSETS),
    "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "3",
    "TRANSACTION_STATE_LOG_NUM_PARTITIONS": "3",
    "TRANSACTION_STATE_LOG_MIN_ISR": "2",
    "HEAP_OPTS": "-Xms128m -Xmx384m",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One broker, which is a controller as well, and its port on this machine."""

    number: int
    port: int
    container: DockerContainer


class ThreeBrokers:
    """Three KRaft nodes that hold a replica of everything; two of them must have each record.

    They share the network of a fourth container, which does nothing, so that they find each other
    and are found from here at the same addresses, which stay over a restart.
    """

    name = "three"

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.number: node for node in nodes}
        self.bootstrap = ",".join(f"localhost:{node.port}" for node in nodes)

    @classmethod
    @contextmanager
    def running(cls, *, padding: int = 0) -> Iterator[Self]:
        """Start them; at the end remove them and their data, whatever happened.

        `padding` old positions are in each partition of `__consumer_offsets`.
        """
        ports = {number: free_port() for number in NODES}
        controllers = {number: free_port() for number in NODES}
        network = DockerContainer(KAFKA_IMAGE, entrypoint="sleep").with_command("infinity")
        for port in ports.values():
            network.with_bind_ports(port, port)
        with ExitStack() as stack:
            stack.enter_context(network)
            nodes = []
            for number, port in ports.items():
                container = DockerContainer(
                    KAFKA_IMAGE, network_mode=f"container:{network.get_container_id()}"
                )
                for name, value in _settings(number, port, controllers).items():
                    container.with_env(f"KAFKA_{name}", value)
                nodes.append(Node(number=number, port=port, container=container))
                stack.enter_context(container)
            made = cls(nodes)
            asyncio.run(made._prepare(padding))
            yield made

    def kill(self, number: int) -> None:
        """End a broker as a crash does; its data stays."""
        self._nodes[number].container.get_wrapped_container().kill()

    def stop(self, number: int) -> None:
        """Shut a broker down in order: its leaders move first. Blocks until it is down."""
        self._nodes[number].container.get_wrapped_container().stop(timeout=60)

    def start(self, number: int) -> None:
        """Start a broker again. Does not wait for it."""
        self._nodes[number].container.get_wrapped_container().start()

    def pause(self, number: int) -> None:
        """Let a broker stand still, with its connections."""
        self._nodes[number].container.get_wrapped_container().pause()

    def resume(self, number: int) -> None:
        """Let it go on, if it stands still."""
        container = self._nodes[number].container.get_wrapped_container()
        container.reload()
        if container.status == "paused":
            container.unpause()

    def without(self, number: int) -> str:
        """Return the addresses of the other brokers."""
        return ",".join(f"localhost:{n.port}" for n in self._nodes.values() if n.number != number)

    async def until_whole(self) -> None:
        """Wait until every broker is there and has every record."""
        async with leaders(self.bootstrap) as found:
            await found.until_in_sync(len(NODES))

    def tool(
        self, name: str, *arguments: str, stdin: bytes = b"", timeout_seconds: float = 60
    ) -> bytes:
        """Run one of Kafka's console tools in the first broker's container that runs."""
        for node in self._nodes.values():
            container = node.container.get_wrapped_container()
            container.reload()
            if container.status == "running":
                break
        return run_tool(
            node.container,
            self.bootstrap,
            name,
            *arguments,
            stdin=stdin,
            timeout_seconds=timeout_seconds,
        )

    def loading_seconds(self) -> list[float]:
        """Return how long each load of a partition of `__consumer_offsets` took so far."""
        return [
            int(line.partition(" in ")[2].partition("ms")[0]) / 1000
            for node in self._nodes.values()
            for line in node.container.get_wrapped_container().logs().decode().splitlines()
            if "Finished loading of metadata from __consumer_offsets" in line
        ]

    async def _prepare(self, padding: int) -> None:
        await take_a_record(self.bootstrap)
        async with leaders(self.bootstrap) as found:
            await found.create_coordinators()
            await found.until_in_sync(len(NODES))
            await found.check_hash()
            for partition in range(PARTITIONS_OF_OFFSETS if padding else 0):
                await pad_offsets(self.bootstrap, partition, padding)
                # A coordinator loses its count of a log to which somebody else wrote.
                await found.move(OFFSETS, partition)


def _settings(number: int, port: int, controllers: Mapping[int, int]) -> dict[str, str]:
    voters = ",".join(f"{node}@localhost:{at}" for node, at in controllers.items())
    return SETTINGS | {
        **_CLUSTER,
        "NODE_ID": str(number),
        "CONTROLLER_QUORUM_VOTERS": voters,
        "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:{controllers[number]}",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
    }
