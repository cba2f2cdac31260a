"""The setting BEGIN_AT, and the evidence that makes it necessary: see `broker.beginnings`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from consumer.partition.offsets import PartitionId

_PLACE: Final = r"([A-Za-z0-9._-]{1,249}-)?\d{1,9}:\d{1,18}"
BEGIN_AT_PATTERN: Final = rf"^(earliest|latest|{_PLACE}(,{_PLACE})*)$"
Edge = Literal["earliest", "latest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginAt:
    """The setting: one edge of the log for every partition, or offsets of some partitions."""

    edge: Edge | None = None
    offsets: Mapping[PartitionId, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None, ingest_topic: str) -> "BeginAt":
        """Parse the setting, which matches `BEGIN_AT_PATTERN`; None: it is not set."""
        if text is None:
            return cls()
        if text == "earliest":
            return cls(edge="earliest")
        if text == "latest":
            return cls(edge="latest")
        offsets: dict[PartitionId, int] = {}
        for entry in text.split(","):
            place, _, offset = entry.rpartition(":")
            topic, _, number = place.rpartition("-")
            offsets[topic or ingest_topic, int(number)] = int(offset)
        return cls(offsets=offsets)

    def of(self, partition: PartitionId) -> Edge | int | None:
        """Return where to begin in a partition; None: the setting does not say."""
        return self.offsets.get(partition, self.edge)


@dataclass(slots=True, kw_only=True)
class Evidence:
    """The results of one partition whose signature verifies.

    `highest`: the highest `source.offset` of `count` results, those of this group or without one;
    `others`: other groups with results; `complete`: the results topic was read from its start.
    """

    highest: int | None = None
    count: int = 0
    others: set[str] = field(default_factory=set)
    complete: bool = True

    def add(self, offset: int, group: str | None, ours: str) -> None:
        """Add a result of a group for the request at an offset."""
        if group not in (None, ours):
            self.others.add(group)
            return
        self.count += 1
        self.highest = max(offset, -1 if self.highest is None else self.highest)

    @property
    def was_here(self) -> bool:
        """Whether this group may have results of the partition."""
        return self.highest is not None or not self.complete


def no_position_message(group_id: str, partition: PartitionId, found: Evidence) -> str:
    """Say why the group cannot begin at the start of a partition, and what to do."""
    topic, number = partition
    if found.highest is not None:
        reach = f"results reach up to source.offset {found.highest}"
        after = f"{topic}-{number}:{found.highest + 1}"
    else:
        reach = "the results topic is too long to be sure that it has none of this group"
        after = f"{topic}-{number}:OFFSET"
    return (
        f"position: group {group_id} has no position of {topic}-{number}, but {reach}: to begin "
        "at the start would do them again. Kafka forgets the position of a group that stands still "
        f"(offsets.retention.minutes). Start once with BEGIN_AT={after} to go on behind them (what "
        "was still open below is skipped), BEGIN_AT=earliest to do all again, BEGIN_AT=latest to "
        "skip what waits"
    )
