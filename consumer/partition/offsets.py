"""Which records of a partition are done, in whatever order they finish. Pure.

Each offset is in one of four states:

    new ─────────take──► open ──done──► done
    unfinished ──take──► open

- new: at or above both `next_offset` and `done_to`; no owner has finished it.
- unfinished: taken by the previous owner and left open below `done_to`.
- open: taken by this owner, without an outcome.
- done: every other offset, gaps of the log among them.

Invariant: the watermark, the lowest offset that is not done, is the committed offset and never
falls. Open and unfinished offsets above it travel in the commit's metadata (`imagelane.position`),
so a restart takes those alone again and one hanging image costs the others nothing. Metadata are
bounded, so `room` bounds how far above the watermark records are taken.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from imagelane.position import MAX_SPAN, STEP, ForeignMetadata, Position, Undone

PartitionId = tuple[str, int]  # topic and number


class OffsetTracker:
    """Follows the records of one partition from being taken to being done.

    `unfinished`: offsets from `offset` on that the previous owner left unfinished below `done_to`.
    """

    def __init__(self, offset: int, unfinished: Sequence[int] = (), done_to: int = 0) -> None:
        self._next_offset = offset
        self._open: dict[int, None] = {}  # taken and not done, in order of their offsets
        self._unfinished = deque(unfinished)  # not done, and to be taken; all above those
        self._done_to = max(offset, done_to)  # from here on nothing is done

    @classmethod
    def from_position(cls, position: Position) -> "OffsetTracker":
        """Go on from what was committed.

        Raises:
            ForeignMetadata: the metadata is not ours; starting from the bare offset is safe, since
                nothing above it has an outcome that this format could have recorded.
        """
        undone = position.undone()
        return cls(position.offset, undone.open, undone.done_to)

    @property
    def next_offset(self) -> int:
        """The lowest offset that was never taken."""
        return self._next_offset

    @property
    def watermark(self) -> int:
        """The lowest offset that is not done."""
        return next(self._not_done(), max(self._next_offset, self._done_to))

    @property
    def offset_limit(self) -> int:
        """The first offset that must not be done yet: its position may overflow the metadata."""
        others = max(0, len(self._open) + len(self._unfinished) - 1)
        return self.watermark + max(1, MAX_SPAN - STEP * others)

    @property
    def room(self) -> int:
        """How many more records may be taken: the position fits, whichever is done first."""
        return max(0, self.offset_limit - self._next_offset) // (STEP + 1)

    def untaken(self, *, position: int, end: int) -> int:
        """Return how many offsets below `end` are to be taken, were the log read from `position`.

        What was done above the committed offset before this start is not.
        """
        return len(self._unfinished) + max(0, end - max(self._next_offset, self._done_to, position))

    def take(self, offset: int) -> bool:
        """Note that a record was read; True if it is to be processed, False if it was before.

        Offsets come in rising order, with gaps where the log has none for us (transaction markers).
        """
        if offset < self._next_offset:
            return False
        self._next_offset = offset + 1
        while self._unfinished and self._unfinished[0] < offset:  # the log has lost it
            self._unfinished.popleft()
        if self._unfinished and self._unfinished[0] == offset:
            self._unfinished.popleft()
        elif offset < self._done_to:
            return False
        self._open[offset] = None
        return True

    def done(self, offset: int) -> None:
        """Note that the outcome of a taken record goes into the next commit."""
        del self._open[offset]
        self._done_to = max(self._done_to, offset + 1)

    def position(self) -> Position:
        """Return what to commit."""
        open_below = tuple(offset for offset in self._not_done() if offset < self._done_to)
        done_to = self._done_to if open_below else self.watermark
        return Position.of(Undone(open=open_below, done_to=done_to))

    def undone_below(self, offset: int) -> int:
        """Return how many offsets below this one were not done, whether taken or never."""
        first_unknown = max(self._next_offset, self._done_to)
        return sum(o < offset for o in self._not_done()) + max(0, offset - first_unknown)

    def _not_done(self) -> Iterator[int]:
        return chain(self._open, self._unfinished)


def undone_below(position: Position, offset: int) -> int:
    """Return how many offsets from a position on, and below an offset, have no outcome."""
    try:
        tracker = OffsetTracker.from_position(position)
    except ForeignMetadata:
        return max(0, offset - position.offset)
    return tracker.undone_below(offset)
