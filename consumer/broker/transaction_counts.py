"""Counts of a process's transactions, for its metrics."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class TransactionCounts:
    """Sums over all partitions, revoked ones included."""

    in_doubt: int = 0
    aborted: int = 0
