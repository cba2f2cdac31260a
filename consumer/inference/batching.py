"""What the device does next, and how many images at once. Pure, so that it can be tried by a table.

Whatever is ready is taken at once, up to the limit: no waiting to fill a batch, for batches grow by
themselves while the device is busy. Embeddings go first; between two of their batches one slice
of caption work has its turn, so neither starves.
"""

from enum import Enum, auto


class Step(Enum):
    EMBED = auto()
    CAPTION = auto()
    MOVE = auto()  # BLIP to the device, or off it


def next_step(
    *, embeds: int, captions: int, can_caption: bool, can_move: bool, last: Step | None
) -> Step | None:
    """Return what the device does next, or None when there is nothing to do.

    Args:
        embeds: images that wait for an embedding.
        captions: images that wait for a caption.
        can_caption: BLIP is on the device.
        can_move: BLIP is to come or to go.
        last: the step before, which decides whose turn it is.
    """
    caption_side: Step | None = None
    if can_move:
        caption_side = Step.MOVE
    elif captions and can_caption:
        caption_side = Step.CAPTION
    if embeds and (last is not Step.EMBED or caption_side is None):
        return Step.EMBED
    return caption_side


class BatchSize:
    """How many images go into one batch: at most `most`, less after the memory ran out.

    Remembers the size that worked, and doubles it after `grow_after` full batches in a row.
    """

    def __init__(self, most: int, *, grow_after: int = 32) -> None:
        self.limit = most
        self._most = most
        self._grow_after = grow_after
        self._full_in_a_row = 0

    def ran_out(self, batch: int, *, worked: int) -> None:
        """Record that memory ran out in a batch of `batch`; pieces of up to `worked` went through.

        One image alone says nothing about the size of batches.
        """
        if batch > 1:
            self.limit = max(1, min(worked, batch // 2))
            self._full_in_a_row = 0

    def worked(self, batch: int) -> None:
        """Record that a batch of `batch` images went through whole."""
        self._full_in_a_row = self._full_in_a_row + 1 if batch >= self.limit else 0
        if self._full_in_a_row >= self._grow_after:
            self.limit = min(self._most, self.limit * 2)
            self._full_in_a_row = 0
