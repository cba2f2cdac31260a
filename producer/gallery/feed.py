"""News for the open pages: pictures as they come, and the state of the work."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from producer.gallery.collection import Collection, Picture

MAX_WAITING: Final = 500  # pictures kept for a page that reads too slowly; older ones are dropped
QUIET_SECONDS: Final = 30


@dataclass(slots=True, eq=False)
class Page:
    """One open page, and the pictures to send to it."""

    waiting: deque[Picture] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """Hands new pictures to every open page, and describes the state of the work."""

    def __init__(self, collection: Collection, clock: Callable[[], float]) -> None:
        self._collection = collection
        self._clock = clock
        self._pages: set[Page] = set()
        self._quiet_since = clock()
        self.open: int | None = None  # records that wait in the ingest topic; None: not known
        self.loaded = asyncio.Event()  # the results up to the start are read
        self.fault: str | None = None
        self.unverifiable_count = 0  # results, so far

    def opened(self) -> Page:
        """Return a new page; it gets the pictures from now on."""
        page = Page()
        self._pages.add(page)
        return page

    def closed(self, page: Page) -> None:
        """Forget a page."""
        self._pages.discard(page)

    def came(self, picture: Picture) -> None:
        """Hand on a picture that is new, or has a later result."""
        self._quiet_since = self._clock()
        if self.open:
            self.open -= 1  # until the next look at the topic
        for page in self._pages:
            page.waiting.append(picture)
            page.woken.set()

    def waiting(self, count: int | None) -> None:
        """Note the number of records that wait for the consumer; None: not known."""
        if not count:
            self._quiet_since = self._clock()
        self.open = count

    def state(self) -> dict[str, Any]:
        """Return the numbers above the grid, and a notice if somebody must act."""
        rate = self._collection.rate()
        return {
            "counts": self._collection.counts,
            "rate": rate,
            "open": self.open,
            "eta_seconds": self.open / rate if self.open and rate else None,
            "models": [
                {"model": model.name, "revision": model.revision, "vectors": vectors}
                for model, vectors in self._collection.models.items()
            ],
            "notice": self._notice(),
        }

    def _notice(self) -> str | None:
        quiet_seconds = self._clock() - self._quiet_since
        if self.fault:
            return self.fault
        if self.open and quiet_seconds > QUIET_SECONDS:
            return (
                f"{self.open} requests wait and no result came for {quiet_seconds:.0f} s: is a "
                "consumer running? `imagelane consume` starts one."
            )
        if not self.loaded.is_set():
            return "Reading the results so far …"
        empty = not sum(self._collection.counts.values())
        if empty and self.unverifiable_count:
            return (
                f"None of {self.unverifiable_count} results verifies: is SECRET_API_KEY that of "
                "the consumers?"
            )
        if empty and not self.open:
            return "No pictures yet. `imagelane publish FOLDER` sends some."
        models = self._collection.models
        if len(models) > 1:
            names = ", ".join(f"{m.name} at {m.revision} ({n})" for m, n in models.items())
            return (
                f"The results are of {len(models)} models, whose vectors cannot be compared: "
                f"{names}. A search finds the pictures of the consumer's present model alone."
            )
        return None
