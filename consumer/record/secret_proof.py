"""The proof that our secret is the one that requests are signed with. Pure.

A wrong secret looks exactly like 100 % forgeries. One verified record is the proof, for the whole
process; before it nothing may be committed, or a wrong secret would drain the topic into the dead
letters. Refusals after it have no effect: any writer of the topic can cause as many as they like.
"""

from collections import Counter
from typing import Final

from schemas import Code

# Refusals before or by the check of the signature. Every other refusal comes after the signature
# verified, so it proves our secret as an admitted record does.
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
    """One verified record proves the secret for good; counts the refusals before it."""

    def __init__(self) -> None:
        self.proven = False
        self._refused: Counter[Code] = Counter()

    def note_history(self, code: Code | None) -> None:
        """Note the verdict of a record from the history; None: it was admitted."""
        if code not in UNVERIFIED:
            self.proven = True

    def note(self, code: Code | None) -> None:
        """Note the verdict of a record without an outcome; None: it was admitted."""
        self.note_history(code)
        if code is not None and not self.proven:
            self._refused[code] += 1

    @property
    def doubt(self) -> str | None:
        """Why nothing is committed, for a person; None without a refusal or after the proof."""
        if self.proven or not self._refused:
            return None
        return f"no record verifies ({_counts(self._refused)} were refused): {HINT}"


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
        """Return the refusals since the last report; None: there are none, or it is too early."""
        if not self._refused or now - self._reported_at < self._period_seconds:
            return None
        text = _counts(self._refused)
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


def _counts(refused: Counter[Code]) -> str:
    """Return `12 unsigned, 3 stale`, the most frequent code first."""
    return ", ".join(f"{count} {code}" for code, count in refused.most_common())
