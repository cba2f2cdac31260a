"""The pictures, newest first, and the nearest of them. No IO; one event loop.

Vectors of two models are never compared: each model and revision has an index of its own.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from imagelane.uris import display
from producer.vector_index import VectorIndex
from schemas import Result

RATE_SECONDS: Final = 30  # the rate is the mean over this time


class Model(NamedTuple):
    """The model of a vector."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture with its latest result. `number` counts arrivals; a later result has a new one.

    `uri` is as sent and may hold a password; `shown` is safe for a page.
    """

    number: int
    id: str
    uri: str
    shown: str
    status: str
    caption: str | None
    code: str | None
    message: str | None
    model: Model | None
    rank: tuple[int, int, int]
    details: bytes  # the result's JSON, without the vector


class Collection:
    """All pictures by id."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_id: dict[str, Picture] = {}
        self._arrived: list[Picture] = []  # by number; replaced ones stay, and `page` skips them
        self._indexes: dict[Model, VectorIndex[str]] = {}
        self._statuses: Counter[str] = Counter()
        self._times: deque[float] = deque()

    def put(self, result: Result, rank: tuple[int, int, int], value: bytes) -> Picture | None:
        """Add a verified result and return its picture; `value` is its JSON.

        None: it is of a text, or its id has a result of the same or a higher rank.
        """
        if result.image is None:
            return None
        before = self._by_id.get(result.id)
        if before is not None and before.rank >= rank:
            return None
        model = self._index(result)
        shown = display(result.image.uri)
        picture = Picture(
            number=len(self._arrived),
            id=result.id,
            uri=result.image.uri,
            shown=shown,
            status=result.status,
            caption=result.caption.text if result.caption else None,
            code=result.error.code if result.error else None,
            message=result.error.message if result.error else None,
            model=model,
            rank=rank,
            details=_for_the_page(value, shown),
        )
        if before is not None:
            self._statuses[before.status] -= 1
            if before.model not in (None, model):
                self._indexes[before.model].remove(result.id)
        self._by_id[result.id] = picture
        self._arrived.append(picture)
        self._statuses[picture.status] += 1
        self._times.append(self._clock())
        return picture

    def get(self, id: str) -> Picture | None:
        """Return the picture of an id."""
        return self._by_id.get(id)

    def page(self, before: int | None, count: int, status: str | None = None) -> list[Picture]:
        """Return the newest `count` pictures, of those before number `before` if it is given."""
        found: list[Picture] = []
        for picture in self._newest_first(before):
            if status is None or picture.status == status:
                found.append(picture)
                if len(found) == count:
                    break
        return found

    def nearest(
        self, model: Model, vector: tuple[float, ...], count: int
    ) -> list[tuple[Picture, float]]:
        """Return the pictures of that model with the largest cosine to the vector, best first."""
        index = self._indexes.get(model)
        if index is None or index.dim != len(vector):
            return []
        return [(self._by_id[id], score) for id, score in index.nearest(vector, count)]

    def neighbours(self, picture: Picture, count: int) -> list[tuple[Picture, float]]:
        """Return the pictures that are nearest to `picture`, without it."""
        index = self._indexes.get(picture.model) if picture.model else None
        vector = index.vector(picture.id) if index else None
        if index is None or vector is None:
            return []
        found = index.nearest(vector, count + 1)
        return [(self._by_id[id], score) for id, score in found if id != picture.id][:count]

    @property
    def models(self) -> dict[Model, int]:
        """How many vectors there are of each model."""
        return {model: len(index) for model, index in self._indexes.items() if len(index)}

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures are `ok`, and how many `error`."""
        return {"ok": self._statuses["ok"], "error": self._statuses["error"]}

    def restart_rate(self) -> None:
        """Leave the pictures so far out of the rate: they were done before."""
        self._times.clear()

    def rate(self) -> float:
        """Pictures a second, over the last half minute."""
        since = self._clock() - RATE_SECONDS
        while self._times and self._times[0] < since:
            self._times.popleft()
        return len(self._times) / RATE_SECONDS

    def _newest_first(self, before: int | None) -> Iterator[Picture]:
        end = len(self._arrived) if before is None else min(before, len(self._arrived))
        for number in range(end - 1, -1, -1):
            picture = self._arrived[number]
            if self._by_id[picture.id] is picture:
                yield picture

    def _index(self, result: Result) -> Model | None:
        """Put the vector, if there is one; return the model that made it."""
        if result.embedding is None:
            return None
        embedding = result.embedding
        model = Model(embedding.model, embedding.revision)
        try:
            vector = embedding.vector()
            index = self._indexes.get(model)
            if index is None:
                index = self._indexes[model] = VectorIndex(len(vector))
            index.put(result.id, vector)
        except ValueError:  # signed, yet wrong: the page shows it, no search finds it
            return None
        return model


def _for_the_page(value: bytes, shown_uri: str) -> bytes:
    """Return a result's JSON without the vector, and with the URI for display."""
    document = orjson.loads(value)
    document["image"]["uri"] = shown_uri
    if isinstance(document.get("embedding"), dict):
        document["embedding"]["data"] = "…"
    return orjson.dumps(document)
