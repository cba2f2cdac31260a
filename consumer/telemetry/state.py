"""The state of the process for probes, metrics and the watchdog."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.runtime.readiness import Readiness
from consumer.runtime.stop import StopRequest
from consumer.runtime.watchdog import Liveness, Snapshot, Work

if TYPE_CHECKING:
    from consumer.broker.group import KafkaStream
    from consumer.images.byte_budget import ByteBudget
    from consumer.images.decoding.pool import Decoder
    from consumer.inference.engine import Engine
    from consumer.partition.assigned import PartitionWorkers
    from consumer.telemetry.tally import OutcomeTally


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The parts of a running consumer; budgets by name, device memory in bytes by kind."""

    tally: "OutcomeTally"
    workers: "PartitionWorkers"
    stream: "KafkaStream"
    engine: "Engine"
    decoder: "Decoder"
    budgets: "Mapping[str, ByteBudget]"
    device_memory: Callable[[], Mapping[str, int]]

    async def waiting(self) -> int:
        """Return how many records of the assigned partitions are not committed."""
        ends = await self.stream.log_ends(self.workers.open_workers)
        return sum(
            worker.backlog(position=end.position, end=end.stable)
            for partition, worker in self.workers.open_workers.items()
            if (end := ends.get(partition))
        )

    def snapshot(self) -> Snapshot:
        """Return the state that the watchdog checks."""
        return Snapshot(
            joined=self.stream.joined,
            work={
                f"{topic}-{number}": Work(
                    in_flight=worker.in_flight,
                    recalling=worker.recalling,
                    progress=worker.committed + worker.recalled,
                )
                for (topic, number), worker in self.workers.open_workers.items()
            },
        )


@dataclass(slots=True, kw_only=True)
class ProcessState:
    """Whether the process is live and ready; `components` is None until the models are warm."""

    readiness: Readiness
    stop: StopRequest
    liveness: Liveness = field(default_factory=Liveness)
    components: Components | None = None

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why the process is not ready, by cause."""
        reasons = dict(self.readiness.reasons)
        if self.stop.asked:
            reasons["stop"] = "it was asked to stop"
        if self.components is None:
            reasons["start"] = "the models are not warm yet"
        elif not self.components.stream.joined:
            reasons["group"] = "it is no member of the consumer group"
        return reasons
