"""`make fuzz` for the full figures; `make test` runs a short part. `SEED=N` repeats a run."""

import os
import secrets
from dataclasses import dataclass
from random import Random

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many inputs a test makes, and from which seed."""

    full: bool
    seed: int

    def inputs(self, *, full: int, short: int) -> int:
        """Return the number for `make fuzz` or that for `make test`."""
        return full if self.full else short

    def random(self, stream: str) -> Random:
        """Return a generator of its own for each `stream`, so that a test repeats alone as well."""
        return Random(f"{self.seed}/{stream}")


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of `SEED`, or one that nobody knew before."""
    return int(os.environ.get("SEED") or secrets.randbelow(2**32))


@pytest.fixture
def scale(seed: int) -> Scale:
    """The scale of this run; the seed stands in the output of every test that fails."""
    print(f"\nSEED={seed}")  # noqa: T201 - what repeats the run
    return Scale(full=os.environ.get("FUZZ") == "full", seed=seed)
