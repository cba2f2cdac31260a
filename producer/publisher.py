"""Sign requests and publish them, and wait for what becomes of them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from producer.connection import answering, existing_partitions, writer
from producer.errors import TooLarge
from producer.ids import new_id
from producer.outcomes import Outcome, Outcomes, Waiting, following
from producer.settings import ProducerSettings
from schemas import ImageReference, Request, Signer, Task, encode_request
from schemas.codec import MAX_VALUE_BYTES
from schemas.headers import CONTENT_TYPE, JSON_CONTENT_TYPE

_IN_FLIGHT: Final = 1000  # requests sent and not yet acknowledged, of publish_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A request under a key of its own: records with the same key go to the same partition."""

    request: Request
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A request that all in-sync replicas have, and where it stands in the log."""

    request: Request
    topic: str
    partition: int
    offset: int
    waiting: Waiting | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id


def image_request(
    uri: str,
    *,
    tasks: tuple[Task, ...] = (Task.EMBED, Task.CAPTION),
    id: str | None = None,
    sha256: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Request:
    """Make a request for the image at `uri`, with a new id unless one is given.

    Raises:
        ValueError: a field breaks the wire contract.
    """
    return Request.model_validate(
        {
            "id": id or new_id(),
            "image": ImageReference(uri=uri, sha256=sha256),
            "tasks": tasks,
            "metadata": metadata,
        }
    )


class _Sent(NamedTuple):
    request: Request
    future: asyncio.Future[Any]
    waiting: Waiting | None


class Publisher:
    """Publishes requests, idempotently and acknowledged by all in-sync replicas.

    With `results=True` it follows the results and the dead letters from before the first request
    is published. Every wait is bounded. `async with` opens and closes it.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        *,
        results: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._signer = Signer(settings.keys, settings.ingest_topic)
        self._outcomes = Outcomes(settings.keys, settings.results_topic) if results else None
        self._stack = AsyncExitStack()
        self._producer: AIOKafkaProducer
        self._follower: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            FatalError: no broker answers, or a topic does not exist (none is created).
        """
        settings = self._settings
        topics = [settings.ingest_topic]
        if self._outcomes:
            topics += [settings.results_topic, settings.dlq_topic]
        partitions = await existing_partitions(settings, topics)
        async with AsyncExitStack() as stack:
            if self._outcomes:
                answers = [found for found in partitions if found.topic != settings.ingest_topic]
                self._follower = await stack.enter_async_context(
                    following(settings, answers, self._outcomes)
                )
            self._producer = await stack.enter_async_context(writer(settings))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def unverifiable_count(self) -> int:
        """How many records of the results topic were ignored: their signature does not hold."""
        return self._outcomes.unverifiable_count if self._outcomes else 0

    async def publish(self, item: Request | Keyed) -> Published:
        """Publish one request and wait until all in-sync replicas have it.

        The key is the id unless a `Keyed` says otherwise.

        Raises:
            TooLarge: nothing was published.
            FatalError: no acknowledgement in time. The record may still arrive: to publish the same
                id again is safe, the consumer takes it once.
        """
        return await self._acknowledged(await self._send(item))

    async def publish_many(
        self, items: Iterable[Request | Keyed] | AsyncIterable[Request | Keyed]
    ) -> AsyncIterator[Published]:
        """Publish all of them and yield each, in order, once all in-sync replicas have it.

        At most 1,000 are in flight. Raises as `publish` does; what is in flight then may arrive.
        """
        source = aiter(items if isinstance(items, AsyncIterable) else _each(items))
        sent: deque[_Sent] = deque()
        upcoming: asyncio.Future[Request | Keyed | None] | None = _next(source)
        try:
            while upcoming or sent:
                while sent and (sent[0].future.done() or not upcoming or len(sent) >= _IN_FLIGHT):
                    yield await self._acknowledged(sent.popleft())
                if upcoming is None:
                    continue
                # Whatever comes first: a source that is slow must not hold back what is done.
                first = {sent[0].future} if sent else set()
                await asyncio.wait({upcoming, *first}, return_when=asyncio.FIRST_COMPLETED)
                if upcoming.done():
                    item = upcoming.result()
                    if item is not None:
                        sent.append(await self._send(item))
                    upcoming = _next(source) if item is not None else None
        finally:
            for waiter in (upcoming, *(one.future for one in sent)):
                if waiter:
                    waiter.cancel()

    async def result(self, published: Published, *, timeout_seconds: float) -> Outcome:
        """Wait for what became of a request that this publisher published.

        A repeat of an id that was done before this publisher opened gets no result: it times out.

        Raises:
            TimeoutError: nothing came in time; it may be asked for again.
            ValueError: the publisher was not opened with `results=True`.
            FatalError: the results or dead letters can no longer be read.
        """
        if published.waiting is None:
            raise ValueError("the publisher was not opened with results=True")
        outcome = published.waiting.outcome
        either: set[asyncio.Future[Any]] = {outcome, self._follower}
        await asyncio.wait(either, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if outcome.done():
            return outcome.result()
        if self._follower.done():
            async with answering(self._settings, "reading results"):
                await self._follower
        raise TimeoutError(f"no result for {published.id} in {timeout_seconds:g} s")

    async def _send(self, item: Request | Keyed) -> _Sent:
        request, key = (item.request, item.key) if isinstance(item, Keyed) else (item, item.id)
        value, key_bytes = encode_request(request), key.encode()
        if len(value) > MAX_VALUE_BYTES:
            raise TooLarge(f"{request.id}: {len(value)} bytes; at most {MAX_VALUE_BYTES}")
        signature = self._signer.sign(
            id=request.id, timestamp=int(self._clock()), key=key_bytes, value=value
        )
        waiting = self._outcomes.expect(request.id) if self._outcomes else None
        headers = [(CONTENT_TYPE, JSON_CONTENT_TYPE), *signature]
        async with sending(self._settings, request.id):
            future = await self._producer.send(
                self._settings.ingest_topic, key=key_bytes, value=value, headers=headers
            )
        return _Sent(request=request, future=future, waiting=waiting)

    async def _acknowledged(self, sent: _Sent) -> Published:
        async with sending(self._settings, sent.request.id):
            metadata = await sent.future
        published = Published(
            request=sent.request,
            topic=metadata.topic,
            partition=metadata.partition,
            offset=metadata.offset,
            waiting=sent.waiting,
        )
        if sent.waiting:
            sent.waiting.acknowledged((metadata.topic, metadata.partition, metadata.offset))
        return published


@asynccontextmanager
async def sending(settings: ProducerSettings, id: str) -> AsyncIterator[None]:
    """Bound the body; raises `TooLarge` for what the topic does not take, else as `answering`."""
    async with answering(settings, f"publishing {id}"):
        try:
            yield
        except (MessageSizeTooLargeError, RecordListTooLargeError) as exc:
            raise TooLarge(f"{id}: too large for the topic") from exc


async def _each(items: Iterable[Request | Keyed]) -> AsyncIterator[Request | Keyed]:
    for item in items:
        yield item


def _next(items: AsyncIterator[Request | Keyed]) -> asyncio.Future[Request | Keyed | None]:
    return asyncio.ensure_future(anext(items, None))
