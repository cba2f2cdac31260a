"""Detects a transaction left open on a topic of requests: the records behind it cannot be read.

Any writer with a transactional id can open one. The broker aborts it after the timeout it was begun
with, at most `transaction.max.timeout.ms`; a second one begun meanwhile holds the records back as
long again.
"""

import math
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.runtime.readiness import Readiness

_SAMPLE_SECONDS: Final = 1.0
_MAX_SAMPLES: Final = 1000


@dataclass(slots=True)
class WithheldRecords:
    """How long a partition's records have been held back. Pure: the time is an argument."""

    # Log ends above the stable offset and when each was first seen, oldest first.
    _ends: list[tuple[int, float]] = field(default_factory=list)

    def seconds(self, *, end: int, stable: int, now: float) -> float:
        """Return the least age of the record at `stable`; 0 if there is none.

        `end` is the log's high watermark, `stable` the offset up to which no transaction is open.
        """
        del self._ends[: bisect_right(self._ends, (stable, math.inf))]
        if end > stable and (not self._ends or self._is_news(end, now)):
            self._ends.append((end, now))
        if len(self._ends) > _MAX_SAMPLES:
            del self._ends[1::2]  # understates the age of some records
        return now - self._ends[0][1] if self._ends else 0.0

    def _is_news(self, end: int, now: float) -> bool:
        last_end, last_at = self._ends[-1]
        return end > last_end and now - last_at >= _SAMPLE_SECONDS


class OpenTransactions:
    """Makes the process not ready while a partition's records have been held back too long.

    The process stays live: a restart would not help, and a writer must not be able to stop it.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, readiness: Readiness, *, bound_seconds: float
    ) -> None:
        self._consumer = consumer
        self._readiness = readiness
        self._bound_seconds = bound_seconds
        self._withheld: dict[TopicPartition, WithheldRecords] = {}

    async def check(self, partition: TopicPartition) -> None:
        """Check a partition of which the last poll returned no record."""
        if partition not in self._consumer.assignment():  # it was revoked during the poll
            return
        end = self._consumer.highwater(partition)
        stable = self._consumer.last_stable_offset(partition)
        if end is None or stable is None or await self._consumer.position(partition) < stable:
            return
        withheld = self._withheld.setdefault(partition, WithheldRecords())
        seconds = withheld.seconds(end=end, stable=stable, now=time.monotonic())
        if seconds <= self._bound_seconds:
            self._readiness.clear(_cause(partition))
            return
        self._readiness.block(
            _cause(partition),
            f"an open transaction holds back {end - stable} offsets of "
            f"{partition.topic}-{partition.partition} from {stable} on, for {seconds:.0f} s now; "
            "`kafka-transactions.sh describe-producers` shows whose it is",
        )

    def forget(self) -> None:
        """Forget all partitions, which are being revoked."""
        for partition in self._withheld:
            self._readiness.clear(_cause(partition))
        self._withheld.clear()


def _cause(partition: TopicPartition) -> str:
    return f"transaction:{partition.topic}-{partition.partition}"
