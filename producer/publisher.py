"""Sign requests, publish them, and wait for their outcomes."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from producer.concurrently import concurrently, each, next_of
from producer.connection import answering, existing_partitions, writer
from producer.dead_letters import Place
from producer.errors import InvalidRequest, NotOpen, ResultTimeout, TooLarge
from producer.outcomes import Outcome, Outcomes, Waiting, following
from producer.requests import Keyed, Processable, request_for
from producer.settings import ProducerSettings
from producer.tracing import trace_headers
from schemas import Request, Signer, encode_request
from schemas.codec import MAX_VALUE_BYTES
from schemas.headers import CONTENT_TYPE, JSON_CONTENT_TYPE

_IN_FLIGHT: Final = 1000  # requests sent and not yet acknowledged, of publish_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A request that all in-sync replicas have, and its place in the log."""

    request: Request
    topic: str
    partition: int
    offset: int
    waiting: Waiting | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def place(self) -> Place:
        """The request's place in the log."""
        return Place(self.topic, self.partition, self.offset)


class _Sent(NamedTuple):
    request: Request
    future: asyncio.Future[Any]
    waiting: Waiting | None


class Publisher:
    """Publishes requests, idempotently and acknowledged by all in-sync replicas.

    With `results=True` it follows results and dead letters, from before its first request on. Every
    wait is bounded. `async with` opens and closes it.
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
        self._signers = {
            topic: Signer(settings.keys, topic)
            for topic in (settings.ingest_topic, settings.queries_topic)
        }
        self._outcomes = Outcomes(settings.keys, settings.results_topic) if results else None
        self._known_topics = {settings.ingest_topic}
        self._stack = AsyncExitStack()
        self._producer: AIOKafkaProducer | None = None
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

    async def __aexit__(self, *_: object) -> None:
        self._producer = None
        await self._stack.aclose()

    @property
    def unverifiable_count(self) -> int:
        """How many results were ignored because their signature does not hold."""
        return self._outcomes.unverifiable_count if self._outcomes else 0

    @property
    def outcome_count(self) -> int:
        """How many outcomes came since the opening, other publishers' included."""
        return self._outcomes.outcome_count if self._outcomes else 0

    def ahead_of(self, published: Published) -> int | None:
        """Return how many records are before this one in the queue, by the latest outcome.

        None: none is, or its partition has no outcome yet.
        """
        return self._outcomes.ahead_of(published.place) if self._outcomes else None

    async def publish(self, item: Request | Keyed) -> Published:
        """Publish one request and wait until all in-sync replicas have it.

        The key is the id unless a `Keyed` says otherwise.

        Raises:
            TooLarge: nothing was published.
            FatalError: no acknowledgement in time. The record may still arrive: it is safe to
                publish the same id again, for the consumer takes it once.
        """
        return await self._acknowledged(await self._send(item))

    async def publish_many(
        self, items: Iterable[Request | Keyed] | AsyncIterable[Request | Keyed]
    ) -> AsyncIterator[Published]:
        """Publish all of them and yield each, in order, once all in-sync replicas have it.

        At most 1,000 are in flight. Raises as `publish` does; requests in flight may then arrive.
        """
        source = each(items)
        sent: deque[_Sent] = deque()
        upcoming: asyncio.Future[Request | Keyed | None] | None = next_of(source)
        try:
            while upcoming or sent:
                while sent and (sent[0].future.done() or not upcoming or len(sent) >= _IN_FLIGHT):
                    yield await self._acknowledged(sent.popleft())
                if upcoming is None:
                    continue
                # A slow source must not hold back an acknowledged request.
                first = {sent[0].future} if sent else set()
                await asyncio.wait({upcoming, *first}, return_when=asyncio.FIRST_COMPLETED)
                if upcoming.done():
                    item = upcoming.result()
                    if item is not None:
                        sent.append(await self._send(item))
                    upcoming = next_of(source) if item is not None else None
        finally:
            for waiter in (upcoming, *(one.future for one in sent)):
                if waiter:
                    waiter.cancel()

    async def result(self, published: Published, *, timeout_seconds: float) -> Outcome:
        """Wait for the outcome of a request of this publisher.

        A repeat of an id that was done before this publisher opened gets no result: it times out.

        Raises:
            ResultTimeout: no outcome came in time; another wait may bring it.
            NotOpen: the publisher was not opened with `results=True`.
            FatalError: the results or dead letters can no longer be read.
        """
        self._opened()
        if published.waiting is None:
            raise NotOpen("for results open it as `Publisher(settings, results=True)`")
        outcome = published.waiting.outcome
        either: set[asyncio.Future[Any]] = {outcome, self._follower}
        await asyncio.wait(either, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if outcome.done():
            return outcome.result()
        if self._follower.done():
            async with answering(self._settings, "reading results"):
                await self._follower
        raise ResultTimeout(
            f"no result for {published.id} in {timeout_seconds:g} s; is a consumer running?"
        )

    async def process(
        self,
        item: Processable | None = None,
        *,
        text: str | None = None,
        timeout_seconds: float = 60,
    ) -> Outcome:
        """Publish a path, a URI or a request, or `text` to embed; return its outcome.

        The publisher must be open with `results=True`. A text goes to `QUERIES_TOPIC`.

        Raises:
            InvalidRequest: the path names no file, or the request breaks the wire contract.
            TooLarge, ResultTimeout, NotOpen, FatalError: as `publish` and `result`.
        """
        if self._outcomes is None:
            raise NotOpen("for results open it as `Publisher(settings, results=True)`")
        request = request_for(item, text)
        outcome = await self.result(await self.publish(request), timeout_seconds=timeout_seconds)
        return replace(outcome, item=text if item is None else item)

    async def process_many(
        self,
        items: Iterable[Processable] | AsyncIterable[Processable],
        *,
        at_once: int = 256,
        timeout_seconds: float = 300,
    ) -> AsyncGenerator[Outcome, None]:
        """Publish all items and yield their outcomes, in the order of arrival.

        At most `at_once` are under way. `outcome.item` is the item. An item that cannot be
        published or has no result in time has an outcome too: `unpublished`, `timeout`.

        Raises:
            NotOpen, FatalError: as `publish` and `result`.
        """
        work = partial(self._outcome, timeout_seconds=timeout_seconds)
        async with aclosing(concurrently(items, work, at_once)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _outcome(self, item: Processable, timeout_seconds: float) -> Outcome:
        try:
            return await self.process(item, timeout_seconds=timeout_seconds)
        except (InvalidRequest, TooLarge) as exc:
            return Outcome(id="", status="unpublished", message=str(exc), item=item)
        except ResultTimeout as exc:
            return Outcome(id="", status="timeout", message=str(exc), item=item)

    async def _send(self, item: Request | Keyed) -> _Sent:
        request, key = (item.request, item.key) if isinstance(item, Keyed) else (item, item.id)
        value, key_bytes = encode_request(request), key.encode()
        if len(value) > MAX_VALUE_BYTES:
            raise TooLarge(f"{request.id}: {len(value)} bytes; at most {MAX_VALUE_BYTES}")
        # Somebody waits for a search, so a text goes to the topic without a backlog of pictures.
        settings = self._settings
        topic = settings.ingest_topic if request.text is None else settings.queries_topic
        signature = self._signers[topic].sign(
            id=request.id, timestamp=int(self._clock()), key=key_bytes, value=value
        )
        waiting = self._outcomes.expect(request.id) if self._outcomes else None
        headers = [(CONTENT_TYPE, JSON_CONTENT_TYPE), *signature, *trace_headers()]
        producer = self._opened()
        if topic not in self._known_topics:  # sending to a missing topic would create it
            await existing_partitions(settings, (topic,))
            self._known_topics.add(topic)
        async with sending(self._settings, request.id):
            future = await producer.send(topic, key=key_bytes, value=value, headers=headers)
        return _Sent(request=request, future=future, waiting=waiting)

    def _opened(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise NotOpen("the publisher is not open: use `async with Publisher(...) as publisher`")
        return self._producer

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
            sent.waiting.acknowledged(published.place)
        return published


@asynccontextmanager
async def sending(settings: ProducerSettings, id: str) -> AsyncIterator[None]:
    """Bound the body; raises `TooLarge` above the topic's limit, and as `answering`."""
    async with answering(settings, f"publishing {id}"):
        try:
            yield
        except (MessageSizeTooLargeError, RecordListTooLargeError) as exc:
            raise TooLarge(f"{id}: too large for the topic") from exc
