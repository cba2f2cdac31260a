"""Which records of a partition are done, in whatever order they finish. Pure.

Each offset is in one of four states:

    new ─────────take──► open ──done──► done
    unfinished ──take──► open

- new: at or above both `_next_offset` and `_done_to`.
- unfinished: below `_done_to`, taken by the previous owner and left open.
- open: taken by this owner, without an outcome.
- done: every other offset, gaps of the log among them.

Invariant: the watermark, the lowest offset that is not done, is the committed offset and never
falls. The commit's metadata (`imagelane.position`) lists the open and unfinished offsets above it,
so a restart repeats only those, and a hanging image delays no other record. Metadata is limited to
4,096 bytes, so `capacity` limits how far above the watermark records are taken.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from imagelane.position import MAX_SPAN, STEP, Position, Undone, undone_in_log

PartitionId = tuple[str, int]  # topic and number


class OffsetTracker:
    """The state of every offset of one partition.

    `unfinished`: offsets from `offset` on that the previous owner left unfinished below `done_to`.
    """

    def __init__(self, offset: int, unfinished: Sequence[int] = (), done_to: int = 0) -> None:
        self._next_offset = offset  # the lowest offset that was never read
        self._open: dict[int, None] = {}  # rising offsets; a dict forgets one in constant time
        self._unfinished = deque(unfinished)  # rising offsets, all above the open ones
        self._done_to = max(offset, done_to)  # the first offset above all that are done

    @classmethod
    def from_position(cls, position: Position) -> "OffsetTracker":
        """Go on from a committed position.

        Raises:
            ForeignMetadata: the metadata is not ours. It recorded no outcome above the offset, so
                the caller may start from the bare offset.
        """
        undone = position.undone()
        return cls(position.offset, undone.open, undone.done_to)

    @property
    def watermark(self) -> int:
        """The lowest offset that is not done."""
        return next(self._not_done(), max(self._next_offset, self._done_to))

    @property
    def offset_limit(self) -> int:
        """The first offset that must not be marked done yet: the metadata might overflow."""
        others = max(0, len(self._open) + len(self._unfinished) - 1)
        return self.watermark + max(1, MAX_SPAN - STEP * others)

    @property
    def capacity(self) -> int:
        """How many more records may be taken: the metadata fits in whatever order they finish."""
        return max(0, self.offset_limit - self._next_offset) // (STEP + 1)

    def untaken(self, *, position: int, end: int) -> int:
        """Return how many offsets below `end` a reader at `position` has still to take.

        Offsets that the previous owner has done are not counted.
        """
        return len(self._unfinished) + max(0, end - max(self._next_offset, self._done_to, position))

    def take(self, offset: int) -> bool:
        """Open an offset; return False if it was taken or done before.

        Offsets come in rising order, with gaps where the log has transaction markers.
        """
        if offset < self._next_offset:
            return False
        self._next_offset = offset + 1
        while self._unfinished and self._unfinished[0] < offset:  # deleted from the log
            self._unfinished.popleft()
        if self._unfinished and self._unfinished[0] == offset:
            self._unfinished.popleft()
        elif offset < self._done_to:
            return False
        self._open[offset] = None
        return True

    def done(self, offset: int) -> None:
        """Mark an open offset as done: the next commit has its outcome."""
        del self._open[offset]
        self._done_to = max(self._done_to, offset + 1)

    def position(self) -> Position:
        """Return the position to commit."""
        open_below = tuple(offset for offset in self._not_done() if offset < self._done_to)
        done_to = self._done_to if open_below else self.watermark
        return Position.of(Undone(open=open_below, done_to=done_to))

    def _not_done(self) -> Iterator[int]:
        return chain(self._open, self._unfinished)


def undone_below(position: Position, offset: int) -> int:
    """Return how many offsets below `offset` have no outcome by a committed position."""
    undone = undone_in_log(position, 0, offset)
    return len(undone.open) + offset - undone.done_to
