"""Turns a reference into pixels: fetch, retry, then decode."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import ByteBudget, Reservation
from consumer.images.decoding.pool import Decoder
from consumer.images.retry import RetryPolicy
from consumer.images.sealed import SealedImage
from consumer.images.sources import Sources
from consumer.outcome import ImageFacts
from consumer.pixels import Resize
from consumer.record.process import Prepared
from schemas import ImageReference, Request, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchAndDecode:
    """`resizes` are the pixel sizes that the model of each task takes."""

    sources: Sources
    decoder: Decoder
    resizes: Mapping[Task, Resize]
    retry: RetryPolicy
    budget: ByteBudget

    @asynccontextmanager
    async def prepare(self, request: Request) -> AsyncIterator[Prepared]:
        """Open the pixels for the tasks of a request, held from the budget until the block ends.

        Raises:
            Failed: with the number of attempts, and the times of fetch and decode so far.
        """
        assert request.image is not None, "a text has no pixels"
        start = monotonic()
        targets = {task: self.resizes[task] for task in request.tasks}
        pixel_bytes = sum(to.byte_length for to in targets.values())
        async with self.budget.reserve(kept_bytes=pixel_bytes) as reservation:
            try:
                sealed = await self._fetch(request.image, reservation)
            except Failed as failed:
                failed.fetch_ms = _ms_since(start)
                raise
            fetch_ms, fetched_at = _ms_since(start), monotonic()
            with sealed:
                try:
                    image = await self.decoder.decode(sealed, targets)
                except Failed as failed:
                    failed.fetch_ms, failed.decode_ms = fetch_ms, _ms_since(fetched_at)
                    raise
            await reservation.keep_pixels()
            facts = ImageFacts(
                sha256=sealed.sha256,
                width=image.width,
                height=image.height,
                format=image.format,
                fetch_ms=fetch_ms,
                decode_ms=_ms_since(fetched_at),
            )
            yield Prepared(image=facts, pixels=image.pixels)

    async def _fetch(self, image: ImageReference, reservation: Reservation) -> SealedImage:
        clock = self.sources.clock
        attempts, failures, failed_at = 0, 0, None
        while True:
            pauses = clock.pauses
            attempts += 1
            try:
                return await self.sources.fetch(image, reservation)
            except Unavailable as unavailable:
                unavailable.attempts = attempts
                # A failure during a pause of our own loop does not count.
                failures += clock.pauses == pauses
                # The age begins here: before, the fetch may have waited for a slot or for memory.
                failed_at = clock.seconds if failed_at is None else failed_at
                delay = self.retry.delay_seconds(
                    failures=failures,
                    age_seconds=clock.seconds - failed_at,
                    retry_after_seconds=unavailable.retry_after_seconds,
                    chance=random.random(),  # noqa: S311 - spreads retries, keeps no secret
                )
                if delay is None:
                    raise
            except Failed as failed:
                failed.attempts = attempts
                raise
            await reservation.resize(0)
            await asyncio.sleep(delay)


def _ms_since(start: float) -> float:
    return (monotonic() - start) * 1000
