"""What must become of each record, whether it did, and which pictures are near. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

from examples.demo.outputs import Outputs, Place
from schemas import Code, Stage

LEAST_RIGHT_SHARE: Final = 0.9  # of the captions whose truth is known, with the tiny checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A record that was published, and what must become of it; `code` None: an ok result."""

    what: str
    place: Place
    code: Code | None = None
    repeat: bool = False

    @property
    def results(self) -> int:
        """How many results it must have: a record that is not let in has none."""
        return 0 if self.repeat or (self.code and self.code.stage is Stage.ADMIT) else 1

    @property
    def dead_letters(self) -> int:
        """How many dead letters it must have."""
        return 1 if self.code else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A picture, and the cosine of its embedding with another's."""

    name: str
    cosine: float


def is_complete(sent: Sequence[Sent], seen: Mapping[Place, Outputs]) -> bool:
    """Tell whether all that must come has come."""
    nothing = Outputs()
    return all(
        len(seen.get(one.place, nothing).results) >= one.results
        and len(seen.get(one.place, nothing).dead_letters) >= one.dead_letters
        for one in sent
    )


def faults_of(sent: Sequence[Sent], seen: Mapping[Place, Outputs]) -> list[str]:
    """Return what is not as it must be: codes, counts, and outcomes of nothing that was sent."""
    faults = [f"{one.what}: {fault}" for one in sent for fault in _faults(one, seen.get(one.place))]
    unexpected = len(seen.keys() - {one.place for one in sent})
    return [
        *faults,
        *([f"{unexpected} outcomes of records that nobody sent"] if unexpected else []),
    ]


def _faults(sent: Sent, found: Outputs | None) -> list[str]:
    seen, wanted = found or Outputs(), sent.code or "ok"
    given = {result.error.code if result.error else "ok" for result in seen.results}
    given |= {dead_letter.code for dead_letter in seen.dead_letters}
    if given - {wanted}:
        return [f"{', '.join(sorted(given))}, not {wanted}"]
    counts = (
        ("results", len(seen.results), sent.results),
        ("dead letters", len(seen.dead_letters), sent.dead_letters),
    )
    return [f"{have} {what}, not {want}" for what, have, want in counts if have != want]


def caption_faults(captions: Mapping[str, str], truths: Mapping[str, str]) -> list[str]:
    """Return the fault if fewer captions than promised are their picture's truth."""
    right = sum(captions.get(name) == truth for name, truth in truths.items())
    if right >= LEAST_RIGHT_SHARE * len(truths):
        return []
    return [f"{right} of {len(truths)} captions are right; {LEAST_RIGHT_SHARE:.0%} must be"]


def nearest(vectors: Mapping[str, Sequence[float]], name: str, count: int) -> list[Neighbour]:
    """Return the `count` others nearest to `name`, nearest first; the vectors are of length 1."""
    mine = vectors[name]
    others = [
        Neighbour(name=other, cosine=sum(map(mul, mine, vector)))
        for other, vector in vectors.items()
        if other != name
    ]
    return sorted(others, key=lambda one: -one.cosine)[:count]
