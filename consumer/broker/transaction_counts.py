"""What happened to the transactions of a process, for its metrics."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class TransactionCounts:
    """Over all partitions, and over those that were given away."""

    in_doubt: int = 0
    aborted: int = 0
