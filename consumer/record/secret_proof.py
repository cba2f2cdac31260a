"""Whether our secret is the one that requests are signed with. Pure.

A wrong secret looks exactly like 100 % forgeries. One record that verifies answers the question for
the whole process; until then nothing may be committed, or a wrong secret would drain the topic into
the dead letters. Nothing else follows from a refusal: whoever can write to the topic can make as
many as he likes.
"""

from collections import Counter
from typing import Final

from schemas import Code

# What is found before or with the signature. Every other refusal of a record comes after its
# signature was found right: it proves our secret as well as an admitted record does.
UNVERIFIED: Final = frozenset(
    {
        Code.UNSIGNED,
        Code.BAD_SIGNATURE,
        Code.UNKNOWN_KEY,
        Code.DUPLICATE_HEADER,
        Code.TOO_LARGE,
    }
)
HINT: Final = (
    "nothing is committed until one does, and nothing is lost. Is SECRET_API_KEY the one that the "
    "ingestion service signs with? Forgeries alone look the same"
)


class SecretProof:
    """Proven by one record that verifies, for good; counts what was refused before that."""

    def __init__(self) -> None:
        self.proven = False
        self._refused: Counter[Code] = Counter()

    def recall(self, code: Code | None) -> None:
        """Note a record of before this run: None admits it, a code refused it."""
        if code not in UNVERIFIED:
            self.proven = True

    def look(self, code: Code | None) -> None:
        """Note a record that waits for its outcome."""
        self.recall(code)
        if code is not None and not self.proven:
            self._refused[code] += 1

    @property
    def doubt(self) -> str | None:
        """Why nothing is committed, for a person; None while nothing speaks against the secret."""
        if self.proven or not self._refused:
            return None
        return f"no record verifies ({counts(self._refused)} were refused): {HINT}"


class Refusals:
    """Refusals by code, reported once a period."""

    def __init__(self, period_seconds: float = 60) -> None:
        self._period_seconds = period_seconds
        self._refused: Counter[Code] = Counter()
        self._truncated = 0
        self._reported_at = float("-inf")

    def note(self, code: Code, *, truncated: bool) -> None:
        """Count one refusal; `truncated`: its dead letter was over the rate."""
        self._refused[code] += 1
        self._truncated += truncated

    def due(self, now: float) -> str | None:
        """Return what was refused since the last report, or None where it is not time for one."""
        if not self._refused or now - self._reported_at < self._period_seconds:
            return None
        text = counts(self._refused)
        if self._truncated:
            text += f"; {self._truncated} dead letters were truncated: over DLQ_BYTES_PER_SECOND"
        if Code.UNKNOWN_KEY in self._refused:
            text += (
                "; unknown_key beside records that verify is a rotation: add the key to "
                "SECRET_API_KEYS_PREVIOUS, then `python -m producer redrive --code unknown_key`"
            )
        self._refused.clear()
        self._truncated, self._reported_at = 0, now
        return text


def counts(refused: Counter[Code]) -> str:
    """Return `12 unsigned, 3 stale`, the most frequent code first."""
    return ", ".join(f"{count} {code}" for code, count in refused.most_common())
