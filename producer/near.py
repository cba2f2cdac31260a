"""What a search finds."""

from typing import NamedTuple


class Near(NamedTuple):
    """A picture and its cosine to what is searched."""

    score: float
    id: str
    uri: str
    caption: str
