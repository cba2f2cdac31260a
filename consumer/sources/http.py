"""`http:` and `https:` references: from allowed hosts, or from any that is on the public internet.

A name is resolved once, every address of it is checked, and only what was checked is connected to;
a literal address is checked with its URL. Redirects are followed here, by the whole way again.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final
from urllib.parse import urljoin

from aiohttp import ClientResponse, ClientSession
from aiohttp.abc import AbstractResolver

from consumer.settings import ConsumerSettings
from consumer.sources import display, forbidden, too_large, unavailable
from consumer.sources.answers import refusal, verdicts
from consumer.sources.budget import Budget, Hold
from consumer.sources.connecting import open_session
from consumer.sources.hosts import HostRules, NotAllowedError, Target
from consumer.sources.turns import HopelessError, Turns
from consumer.verdicts import Failed
from schemas import Code

_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FIRST_HOLD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How slow a host may be: seconds for all of it, and bytes a second once the grace is over."""

    total_seconds: float
    grace_seconds: float
    min_bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """Asks with one session, which connects to nothing but what `rules` allow; `now` is Unix time.

    Waiting for a turn at a host, and for memory, counts in no deadline.
    """

    rules: HostRules
    session: ClientSession
    turns: Turns
    pace: Pace
    now: Callable[[], float] = time.time

    @asynccontextmanager
    async def fetch(self, uri: str, max_bytes: int, budget: Budget) -> AsyncIterator[bytes]:
        """Open the body of the answer; what was read is held, and little more.

        Raises:
            Failed: `forbidden_source` (URL, host or address not allowed, here or where it is
                redirected to; over 3 redirects), `not_found` (also when the host refuses us),
                `image_too_large`, or `image_unavailable` when trying again would not heal it.
            Unavailable: no connection, no valid certificate, an answer of 5xx or the like, a
                deadline is over.
        """
        async with budget.hold(0) as held:
            body = _Body(uri=uri, max_bytes=max_bytes, budget=budget, held=held, pace=self.pace)
            try:
                data = await self._follow(uri, body)
            except NotAllowedError as exc:
                raise forbidden(uri, str(exc)) from exc
            except HopelessError as exc:
                raise Failed(
                    Code.IMAGE_UNAVAILABLE,
                    f"{display(uri)}: its host answers too seldom for all that wait for it",
                ) from exc
            yield data

    async def _follow(self, uri: str, body: "_Body") -> bytes:
        target, left_seconds = self.rules.target(uri), self.pace.total_seconds
        for _ in range(1 + _MAX_REDIRECTS):
            async with (
                self.turns.turn(target.host),
                verdicts(uri),
                asyncio.timeout(left_seconds) as clock,
                self.session.get(target.url, allow_redirects=False) as response,
            ):
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    if verdict := refusal(uri, response, self.now()):
                        raise verdict
                    return await body.read(response, clock)
                left_seconds = _left_seconds(clock)
            target = self._redirected(target, location)
        raise NotAllowedError(f"over {_MAX_REDIRECTS} redirects")

    def _redirected(self, origin: Target, location: str) -> Target:
        # urljoin would take the host of the origin for the one that `http:///path` lacks.
        absolute = _SCHEME.match(location)
        try:
            target = self.rules.target(location if absolute else urljoin(str(origin.url), location))
        except (NotAllowedError, ValueError) as exc:
            raise NotAllowedError(f"it redirects, and {exc}") from exc
        if origin.is_secure and not target.is_secure:
            raise NotAllowedError("it redirects from https to http")
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """Reads a body into memory that is held before it is read."""

    uri: str
    max_bytes: int
    budget: Budget
    held: Hold
    pace: Pace

    async def read(self, response: ClientResponse, clock: asyncio.Timeout) -> bytes:
        said = response.content_length
        limit = self.max_bytes + 1 if said is None else said
        if said is not None and said > self.max_bytes:  # not read at all
            raise too_large(self.uri, self.max_bytes)
        content, size = BytesIO(), 0  # BytesIO hands out what it holds without a copy
        start = asyncio.get_running_loop().time()
        while size < limit:
            if size == self.held.byte_length:
                start += await self._grow(min(limit, max(_FIRST_HOLD_BYTES, 2 * size)), clock)
            chunk = await response.content.read(self.held.byte_length - size)
            if not chunk:
                break
            size += content.write(chunk)
            self._check_speed(size, asyncio.get_running_loop().time() - start)
        if size > self.max_bytes:
            raise too_large(self.uri, self.max_bytes)
        await self.budget.resize(self.held, size)
        return content.getvalue()

    async def _grow(self, byte_length: int, clock: asyncio.Timeout) -> float:
        """Hold that much, and return the seconds that it took; the deadline moves by as much."""
        loop = asyncio.get_running_loop()
        start, left_seconds = loop.time(), _left_seconds(clock)
        clock.reschedule(None)
        await self.budget.resize(self.held, byte_length)
        clock.reschedule(loop.time() + left_seconds)
        return loop.time() - start

    def _check_speed(self, byte_length: int, seconds: float) -> None:
        pace = self.pace
        if seconds > pace.grace_seconds and byte_length < seconds * pace.min_bytes_per_second:
            raise unavailable(self.uri, "its host sends too slowly")


@asynccontextmanager
async def open_http(
    settings: ConsumerSettings, resolver: AbstractResolver | None = None
) -> AsyncIterator[HttpSource]:
    """Open a source for the hosts of the settings; `resolver` instead of the system's servers.

    Raises:
        Halt: a host or a network is not one, or HTTP_CA_FILE cannot be read.
    """
    rules = HostRules.parse(
        settings.allowed_hosts,
        public=settings.allow_public_hosts,
        networks=settings.allowed_networks,
    )
    turns = Turns(
        at_once=settings.http_per_host,
        max_crowd=settings.records_in_flight // 4,
        max_age_seconds=settings.retry_max_age_seconds,
    )
    pace = Pace(
        total_seconds=settings.fetch_total_seconds,
        grace_seconds=settings.fetch_grace_seconds,
        min_bytes_per_second=settings.fetch_min_bytes_per_second,
    )
    async with open_session(settings, rules, resolver) as session:
        yield HttpSource(rules=rules, session=session, turns=turns, pace=pace)


def _left_seconds(clock: asyncio.Timeout) -> float:
    when = clock.when()
    assert when is not None
    return when - asyncio.get_running_loop().time()
