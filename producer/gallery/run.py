"""The running gallery: results in, searches out, one page."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from imagelane.exits import ExitCode, FatalError, ImagelaneError
from imagelane.files import BadPath, Root, path_of
from imagelane.kafka.admin import committed_offsets
from imagelane.kafka.errors import Unanswered
from imagelane.position import undone_in_log
from imagelane.token_bucket import TokenBucket
from producer.connection import administration, answering, existing_partitions, reader
from producer.gallery.collection import Collection, Model
from producer.gallery.feed import Feed
from producer.gallery.server import CannotSearch, Parts, QueryVector, application
from producer.gallery.settings import GallerySettings
from producer.publisher import Publisher
from producer.results import ResultReader

SEARCH_SECONDS: Final = 15
BACKLOG_SECONDS: Final = 2
SEARCHES_PER_SECOND: Final = 5
SEARCHES_AT_ONCE: Final = 20
_STOP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A running gallery: its page's address, and the task that it ends with."""

    address: str
    collection: Collection
    feed: Feed
    reading: asyncio.Task[None]


@asynccontextmanager
async def running_gallery(
    settings: GallerySettings,
    *,
    since: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Gallery]:
    """Serve the gallery while the body runs.

    Raises:
        FatalError: no broker answers, a topic or a folder does not exist, the port is taken.
    """
    collection = Collection(clock)
    feed = Feed(collection, clock)
    folders = _Folders(settings.file_roots)
    async with (
        Publisher(settings, results=True) as publisher,
        ResultReader(settings, since=since) as results,
        asyncio.TaskGroup() as tasks,
    ):
        reading = tasks.create_task(_read(results, collection, feed))
        backlog = tasks.create_task(_follow_backlog(settings, feed))
        parts = Parts(
            collection=collection,
            feed=feed,
            embed=_Searches(publisher).embed,
            open_image=folders.open,
            searches=TokenBucket(SEARCHES_PER_SECOND, SEARCHES_AT_ONCE),
            clock=clock,
        )
        try:
            async with _serving(settings, parts) as address:
                yield Gallery(address=address, collection=collection, feed=feed, reading=reading)
        finally:
            reading.cancel()
            backlog.cancel()


@asynccontextmanager
async def _serving(settings: GallerySettings, parts: Parts) -> AsyncIterator[str]:
    token = settings.gallery_token.get_secret_value() if settings.gallery_token else None
    app = application(parts, frozenset(map(str.lower, settings.gallery_names)), token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.gallery_host, settings.gallery_port)
        try:
            await site.start()
        except OSError as exc:
            where = f"{settings.gallery_host}:{settings.gallery_port}"
            # asyncio puts a sentence of its own in place of the system's.
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise FatalError(
                ExitCode.SETTINGS, f"gallery: {where}: {reason}; see GALLERY_PORT"
            ) from exc
        port = runner.addresses[0][1]
        name = settings.gallery_host if settings.gallery_host != "127.0.0.1" else "localhost"
        yield f"http://{name}:{port}/" + (f"?token={token}" if token else "")
    finally:
        await runner.cleanup()


async def _read(results: ResultReader, collection: Collection, feed: Feed) -> None:
    async for batch in results.batches():
        feed.unverifiable_count = results.unverifiable_count
        if not batch and not feed.loaded.is_set():
            collection.restart_rate()
            feed.loaded.set()
        for one in batch:
            picture = collection.put(one.result, one.rank, one.value)
            if picture and feed.loaded.is_set():
                feed.came(picture)


async def _follow_backlog(settings: GallerySettings, feed: Feed) -> None:
    """Note the consumers' backlog every two seconds.

    Without the right to see the group's position the page lacks this number.
    """
    while True:
        try:
            partitions = await existing_partitions(settings, (settings.ingest_topic,))
            async with administration(settings) as admin, reader(settings) as consumer:
                consumer.assign(partitions)
                while True:
                    feed.waiting(await _backlog(settings, admin, consumer, partitions))
                    feed.fault = None
                    await asyncio.sleep(BACKLOG_SECONDS)
        except (FatalError, Unanswered) as exc:
            feed.waiting(None)
            denied = isinstance(exc, FatalError) and exc.code is ExitCode.ACCESS
            feed.fault = None if denied else f"Kafka does not answer: {exc}"
        await asyncio.sleep(BACKLOG_SECONDS)


async def _backlog(
    settings: GallerySettings,
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    partitions: list[TopicPartition],
) -> int:
    async with answering(settings, "asking for what waits"):
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        found = await committed_offsets(admin, settings.group_id, partitions)
        waiting = 0
        for one in partitions:
            undone = undone_in_log(found.get(one), starts[one], ends[one])
            waiting += len(undone.open) + ends[one] - undone.done_to
        return waiting


@dataclass(frozen=True, slots=True)
class _Searches:
    """Embeds words by signed requests to the consumers."""

    publisher: Publisher

    async def embed(self, words: str) -> QueryVector:
        """Return the vector of the words.

        Raises:
            CannotSearch: no consumer answers in time, or the words cannot be embedded.
        """
        try:
            outcome = await self.publisher.process(text=words, timeout_seconds=SEARCH_SECONDS)
        except ImagelaneError as exc:
            raise CannotSearch(f"The search did not come back: {exc}") from exc
        embedding = outcome.result.embedding if outcome.result else None
        if embedding is None:
            raise CannotSearch(f"These words cannot be searched: {outcome.code}: {outcome.message}")
        return QueryVector(
            model=Model(embedding.model, embedding.revision), vector=tuple(embedding.vector())
        )


class _Folders:
    """The folders of the page's pictures, opened as the consumer opens them."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        try:
            self._roots = tuple(map(Root.resolve, paths))
        except BadPath as exc:
            raise FatalError(ExitCode.SETTINGS, f"FILE_ROOTS: {exc}") from exc

    def open(self, uri: str) -> int | None:
        """Return a descriptor of the URI's file below a root, or None."""
        if not uri.lower().startswith("file:"):
            return None
        try:
            parts = path_of(uri)
            for root in self._roots:
                if below := root.below(parts):
                    return root.open(below)
        except (BadPath, OSError):
            return None
        return None
