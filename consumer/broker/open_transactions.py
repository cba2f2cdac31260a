"""Notices a transaction on the ingest topic that is left open: nothing behind it can be read.

Whoever may write with a transactional id can open one; the broker ends it after the age that it
was begun with, at most `transaction.max.timeout.ms`. A further one that is begun meanwhile holds
the records back as long again.
"""

import math
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.runtime.readiness import Readiness

_SAMPLE_SECONDS: Final = 1.0
_MOST_SAMPLES: Final = 1000


@dataclass(slots=True)
class WithheldRecords:
    """How long a partition's records have been held back. Pure: the time is an argument."""

    # Ends of the log and when each was first seen, oldest first; none that can be read up to.
    _ends: list[tuple[int, float]] = field(default_factory=list)

    def seconds(self, *, end: int, stable: int, now: float) -> float:
        """Return for how long at least the record at `stable` has been there; 0 where none is.

        `end` is the log's high watermark, `stable` the offset up to which no transaction is open.
        """
        del self._ends[: bisect_right(self._ends, (stable, math.inf))]
        if end > stable and (not self._ends or self._is_news(end, now)):
            self._ends.append((end, now))
        if len(self._ends) > _MOST_SAMPLES:
            del self._ends[1::2]  # the age of some records is understated
        return now - self._ends[0][1] if self._ends else 0.0

    def _is_news(self, end: int, now: float) -> bool:
        last_end, last_at = self._ends[-1]
        return end > last_end and now - last_at >= _SAMPLE_SECONDS


class OpenTransactions:
    """Looks at the partitions of a consumer, and says where records have been held back too long.

    We are not ready then, and alive: a restart would heal nothing, and whoever left the transaction
    open must not be able to stop us.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, readiness: Readiness, *, bound_seconds: float
    ) -> None:
        self._consumer = consumer
        self._readiness = readiness
        self._bound_seconds = bound_seconds
        self._withheld: dict[TopicPartition, WithheldRecords] = {}

    async def look(self, partition: TopicPartition) -> None:
        """Look at a partition that a poll has just found nothing in."""
        if partition not in self._consumer.assignment():  # since the poll began
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
        """Forget all partitions, as they go to somebody else."""
        for partition in self._withheld:
            self._readiness.clear(_cause(partition))
        self._withheld.clear()


def _cause(partition: TopicPartition) -> str:
    return f"transaction:{partition.topic}-{partition.partition}"
