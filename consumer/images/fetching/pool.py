"""The fetching processes. They keep every byte of an image out of the consumer's own process."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Self

from yarl import URL

from consumer.images.byte_budget import Reservation
from consumer.images.fetching.process import FetchProcess
from consumer.images.sealed import SealedImage
from consumer.images.sources.http import Redirect, VisitedRoom
from consumer.images.sources.options import FetchOptions

# A process sends ticks twice a second. Our own pause can look like one silent check.
_LOOK_SECONDS: Final = 5.0
_MAX_SILENT_LOOKS: Final = 3


class Fetchers:
    """Hands each fetch to the least busy process; the source of schemes that ask no host.

    `paused` is called after a process stood still: failures of that time do not count. All of them
    together may hold `window_bytes` that are not reserved.
    """

    def __init__(
        self,
        options: FetchOptions,
        *,
        count: int,
        environment: Mapping[str, str],
        paused: Callable[[], None],
        window_bytes: int,
    ) -> None:
        self._processes = [
            FetchProcess(options, environment, paused, window_bytes // count) for _ in range(count)
        ]

    async def __aenter__(self) -> Self:
        """Start the processes; `ready` waits for them."""
        for number, process in enumerate(self._processes):
            try:
                process.start()
            except BaseException:
                self._close(number)
                raise
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        self._close(len(self._processes))

    def _close(self, count: int) -> None:
        for process in self._processes[:count]:
            process.close()

    async def ready(self) -> None:
        """Wait until all of them can fetch.

        Raises:
            FatalError: a source cannot be opened as the options say, or a process ended.
        """
        for process in self._processes:
            await process.ready()

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
        """Satisfy `SealedSource`."""
        found = await self._least_busy().fetch(uri, max_bytes, reservation)
        assert isinstance(found, SealedImage), "a redirect of a scheme that has none"
        return found

    async def ask(
        self, uri: str, url: URL, max_bytes: int, seconds: float, room: VisitedRoom
    ) -> SealedImage | Redirect:
        """Satisfy `http.Ask`."""
        process = self._least_busy()
        return await process.fetch(uri, max_bytes, room, url=str(url), seconds=seconds)

    def _least_busy(self) -> FetchProcess:
        return min(self._processes, key=lambda process: process.at_work)

    async def _watch(self) -> None:
        """Replace a process that sends nothing."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for process in self._processes:
                process.silent_looks += 1
                if process.silent_looks > _MAX_SILENT_LOOKS:
                    process.replace("nothing was heard of it for a while")
