"""The progress of the consumers, as the value that `imagelane status` shows.

Each part is known, or a `Fault` that says why not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imagelane.exits import ExitCode
from imagelane.kafka.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a part is not known, and the exit code for it."""

    code: ExitCode
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """The progress of one partition.

    `backlog`: readable records without an outcome; `is_exact`: it has no transactions' markers.
    `open`: those of the backlog below the highest done record. `withheld`: offsets from `end` on
    that an open transaction keeps unreadable.
    """

    topic: str
    partition: int
    member: str | None
    position: int | None
    end: int
    backlog: int
    is_exact: bool
    open: int
    withheld: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastResult:
    """The last result, appended at Unix seconds; not verified without a secret."""

    topic: str
    partition: int
    offset: int
    appended_at: float
    id: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """Dead letters by code since a time (Unix seconds); `is_cut`: only the latest were counted."""

    since: float
    by_code: Mapping[str, int]
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of the consumers of a group."""

    group: Group | Fault
    partitions: tuple[PartitionStatus, ...] | Fault
    last_result: LastResult | Fault | None
    dead_letters: DeadLetters | Fault

    @property
    def faults(self) -> dict[str, Fault]:
        """The faults by the name of the part."""
        parts = {
            "group": self.group,
            "partitions": self.partitions,
            "last_result": self.last_result,
            "dead_letters": self.dead_letters,
        }
        return {name: part for name, part in parts.items() if isinstance(part, Fault)}
