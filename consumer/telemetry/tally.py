"""Counts committed outcomes and measures commits: once a commit, not once a record.

It wraps the `write` and `commit` of a partition's worker, so the worker knows no metrics and only
committed outcomes are counted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Final

from consumer.outcome import ErrorOutcome, OkOutcome, Outcome, RefusedOutcome
from consumer.partition.worker import Commit, Write
from consumer.runtime.distribution import SECONDS, Distribution
from imagelane.position import Position
from schemas import Code, OutgoingRecord, Record, Stage

STAGES: Final = ("queue", "fetch", "decode", "embed", "caption", "total")


class OutcomeTally:
    """The committed outcomes of all workers of a process."""

    def __init__(self) -> None:
        self.records: Counter[tuple[str, str]] = Counter()  # by outcome and code
        # A series that exists from the start can raise an alert at its first record.
        self.records.update({("ok", ""): 0, ("repeat", ""): 0})
        self.records.update(
            {("refused" if c.stage is Stage.ADMIT else "error", str(c)): 0 for c in Code}
        )
        self.stage_seconds = {stage: Distribution(SECONDS) for stage in STAGES}
        self.commit_seconds = Distribution(SECONDS)

    def wrap(self, write: Write, commit: Commit) -> tuple[Write, Commit]:
        """Return one worker's `write` and `commit` with counting added.

        A worker commits one batch at a time, so a commit covers all outcomes written before it.
        """
        written: list[Outcome] = []

        def write_and_note(record: Record, outcome: Outcome, now: float) -> list[OutgoingRecord]:
            written.append(outcome)
            return write(record, outcome, now)

        async def commit_and_count(outputs: Sequence[OutgoingRecord], position: Position) -> None:
            start = monotonic()
            await commit(outputs, position)
            self.commit_seconds.observe([monotonic() - start])
            self._count(written)
            written.clear()

        return write_and_note, commit_and_count

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        oks = [outcome for outcome in outcomes if type(outcome) is OkOutcome]
        self.records["ok", ""] += len(oks)
        others = [outcome for outcome in outcomes if type(outcome) is not OkOutcome]
        self.records.update(map(_label, others))
        errors = [outcome.timing for outcome in others if isinstance(outcome, ErrorOutcome)]
        images = [ok.image for ok in oks if ok.image is not None]
        inferences = [ok.inference for ok in oks]
        observe = self._observe_ms
        observe("queue", [o.queue_ms for o in oks], (t.queue for t in errors))
        observe("fetch", [i.fetch_ms for i in images], (t.fetch for t in errors))
        observe("decode", [i.decode_ms for i in images], (t.decode for t in errors))
        observe("embed", [ms for i in inferences if (ms := i.embed_ms) is not None])
        observe("caption", [ms for i in inferences if (ms := i.caption_ms) is not None])
        observe("total", [o.total_ms for o in oks], (t.total for t in errors))

    def _observe_ms(
        self, stage: str, oks: list[float], errors: Iterable[float | None] = ()
    ) -> None:
        values = oks + [ms for ms in errors if ms is not None]
        self.stage_seconds[stage].observe([ms / 1000 for ms in values])


def _label(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case ErrorOutcome(code=code):
            return "error", str(code)
        case RefusedOutcome(code=code):
            return "refused", str(code)
        case OkOutcome():
            return "ok", ""
        case _:
            return "repeat", ""
