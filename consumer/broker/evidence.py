"""Reads the end of the results topic: results are evidence that a group has lost its position."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.broker.history import open_reader, record_of
from consumer.partition.begin_at import Evidence
from consumer.partition.offsets import PartitionId
from imagelane.position import MAX_OPEN
from schemas import Record, Refused, Source, Verifier, decode_source

log = structlog.get_logger()

WINDOW_RECORDS: Final = 10_000  # read at a time, backwards
MAX_RECORDS: Final = 200_000  # of one results partition; bounds the start
# At most MAX_OPEN records are open at once, so at most MAX_OPEN results follow the one with the
# highest source.offset: MAX_OPEN + 1 results of a partition include it.
ENOUGH: Final = MAX_OPEN + 1
_POLL_MS: Final = 500


@dataclass(slots=True, kw_only=True)
class ResultsEvidence:
    """Reads evidence about one group from the results topic."""

    client: Mapping[str, Any]
    results_topic: str
    results_partitions: int
    group_id: str
    verifier: Verifier
    _unverified: int = field(default=0, init=False)

    async def read(
        self, partitions: Collection[PartitionId], seconds: float, max_records: int | None = None
    ) -> dict[PartitionId, Evidence]:
        """Return the evidence of the last results about these partitions of requests.

        Each results partition is read backwards: to its start, for `max_records` (by default
        `MAX_RECORDS`), or until it has shown `ENOUGH` results of each partition; all together take
        `seconds` at most.
        """
        found = {partition: Evidence() for partition in partitions}
        give_up = time.monotonic() + seconds
        async with open_reader(self.client) as consumer:
            for number in range(self.results_partitions):
                results = TopicPartition(self.results_topic, number)
                await self._read_back(consumer, results, found, give_up, max_records or MAX_RECORDS)
        if self._unverified:
            log.warning(
                "results that do not verify are no evidence",
                topic=self.results_topic,
                records=self._unverified,
            )
        return found

    async def _read_back(
        self,
        consumer: AIOKafkaConsumer,
        results: TopicPartition,
        found: dict[PartitionId, Evidence],
        give_up: float,
        max_records: int,
    ) -> None:
        before = {partition: evidence.count for partition, evidence in found.items()}
        consumer.assign([results])
        start = (await consumer.beginning_offsets([results]))[results]
        upper = (await consumer.end_offsets([results]))[results]
        floor = max(start, upper - max_records)
        while upper > floor and any(e.count - before[p] < ENOUGH for p, e in found.items()):
            lower = max(floor, upper - WINDOW_RECORDS)
            if not await self._window(consumer, results, lower, upper, found, give_up):
                break
            upper = lower
        for evidence in found.values():
            evidence.complete &= upper <= start

    async def _window(
        self,
        consumer: AIOKafkaConsumer,
        results: TopicPartition,
        lower: int,
        upper: int,
        found: dict[PartitionId, Evidence],
        give_up: float,
    ) -> bool:
        """Read the offsets from `lower` to below `upper`; False if the time ran out."""
        consumer.seek(results, lower)
        while await consumer.position(results) < upper:
            if time.monotonic() >= give_up:
                return False
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=500)
            for message in (m for batch in batches.values() for m in batch if m.offset < upper):
                source = self._source(record_of(message))
                evidence = source and found.get((source.topic, source.partition))
                if source and evidence:
                    evidence.add(source.offset, source.group, self.group_id)
        return True

    def _source(self, record: Record) -> Source | None:
        try:
            self.verifier.verify(record.headers, record.key, record.value)
            return decode_source(record.value or b"")
        except Refused:
            self._unverified += 1
            return None
