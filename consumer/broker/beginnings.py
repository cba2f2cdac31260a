"""Where the group begins in partitions without a committed position; read before it is joined.

    no position, no results of this group ───► new group: begin at the start of the log
    no position, results of this group ──────► lost position: end with NO_POSITION
    no position, BEGIN_AT is set ────────────► begin where it says

Invariant: the group repeats answered requests only after a person asked for it, by BEGIN_AT or by
setting a position back. Kafka forgets the position of a group that is idle for
`offsets.retention.minutes`; to begin at the start of the log would then repeat every request.
Signed results name the group and the offset that they answer, so they tell a lost position from a
new group. A results topic that was not read to its start counts as results of this group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from aiokafka import TopicPartition

from consumer.broker.cluster import Cluster, TopicFacts
from consumer.broker.evidence import WINDOW_RECORDS, ResultsEvidence
from consumer.partition.begin_at import BeginAt, Edge, Evidence, no_position_message
from consumer.partition.offsets import PartitionId
from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.errors import answers_needed
from imagelane.position import Position

log = structlog.get_logger()

LOOK_SECONDS: Final = 60  # bounds the reading of results before the group is joined


@dataclass(slots=True, kw_only=True)
class Beginnings:
    """`topics` are those of requests; `positions` the group's own when `look_back` read them."""

    cluster: Cluster
    topics: Sequence[TopicFacts]
    group_id: str
    begin_at: BeginAt
    evidence: ResultsEvidence
    positions: dict[PartitionId, Position] = field(default_factory=dict, init=False)
    _examined: set[PartitionId] = field(default_factory=set, init=False)

    async def look_back(self) -> None:
        """Read the positions of all partitions, and results of those without one.

        Raises:
            FatalError: `NO_POSITION`: the group lost a position; no answer, or a refusal.
        """
        partitions = [
            TopicPartition(topic.name, number)
            for topic in self.topics
            for number in range(topic.partitions)
        ]
        with answers_needed("reading positions"):
            self.positions = {**await self.cluster.all_committed(partitions)}
        await self._examine([p for p in partitions if p not in self.positions], LOOK_SECONDS)
        await self._look_for_resets(
            [partition for partition, at in self.positions.items() if not at.is_ours]
        )

    async def of(self, partition: PartitionId, seconds: float) -> Edge | int | None:
        """Return where to begin in a partition without a position; None: at the start of the log.

        A partition that `look_back` has not examined is examined now, for `seconds` at most.

        Raises:
            FatalError: as `look_back`.
        """
        if partition not in self._examined:
            await self._examine([partition], seconds)
        return self.begin_at.of(partition)

    async def _examine(self, partitions: Sequence[PartitionId], seconds: float) -> None:
        unsaid = [p for p in partitions if self.begin_at.of(p) is None]
        for partition in set(partitions) - set(unsaid):
            topic, number = partition
            log.warning("no position, so BEGIN_AT holds", topic=topic, partition=number)
        found = await self._read(unsaid, seconds)
        for partition, evidence in found.items():
            if evidence.was_here:
                message = no_position_message(self.group_id, partition, evidence)
                raise FatalError(ExitCode.NO_POSITION, message)
        if others := sorted({group for evidence in found.values() for group in evidence.others}):
            log.warning(
                "requests that other groups have done are done again by this one",
                group=self.group_id,
                others=others[:10],
            )
        self._examined |= set(partitions)

    async def _look_for_resets(self, partitions: Sequence[PartitionId]) -> None:
        """Log the positions that a person has set back behind results of this group."""
        found = await self._read(partitions, LOOK_SECONDS, WINDOW_RECORDS)
        for partition, evidence in found.items():
            offset, highest = self.positions[partition].offset, evidence.highest
            if highest is not None and highest >= offset:
                log.warning(
                    "position was set back, so requests are done again",
                    topic=partition[0],
                    partition=partition[1],
                    offset=offset,
                    results_reach=highest,
                )

    async def _read(
        self, partitions: Sequence[PartitionId], seconds: float, max_records: int | None = None
    ) -> dict[PartitionId, Evidence]:
        if not partitions:
            return {}
        with answers_needed("reading results back"):
            return await self.evidence.read(partitions, seconds, max_records)
