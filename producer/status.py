"""How far the consumers are, as a value: what `imagelane status` shows.

Each part is what was answered, or the `Fault` for which there is no answer; never nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imagelane.exits import ExitCode
from imagelane.kafka.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a part is not known, and the exit code of that."""

    code: ExitCode
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """How far one partition is.

    `backlog`: records that have no outcome, of those that can be read; `is_exact`: transactions'
    markers are not among them. `open`: those of them below the highest that is done. `withheld`:
    offsets from `end` on that an open transaction keeps from being read.
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
    """The result that was appended last (Unix seconds); without a secret, unverified."""

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
    """All of it."""

    group: Group | Fault
    partitions: tuple[PartitionStatus, ...] | Fault
    last_result: LastResult | Fault | None
    dead_letters: DeadLetters | Fault

    @property
    def faults(self) -> dict[str, Fault]:
        """What is not known, by the name of the part."""
        parts = {
            "group": self.group,
            "partitions": self.partitions,
            "last_result": self.last_result,
            "dead_letters": self.dead_letters,
        }
        return {name: part for name, part in parts.items() if isinstance(part, Fault)}
