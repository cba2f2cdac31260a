"""`http:` and `https:` references: from allowed hosts, or from any that is on the public internet.

A name is resolved once, every address of it is checked, and only what was checked is connected to;
a literal address is checked with its URL. Redirects are followed here, by the whole way again.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

from aiohttp import ClientResponse, ClientSession
from aiohttp.abc import AbstractResolver
from yarl import URL

from consumer.errors import Failed
from consumer.images.byte_budget import Budget
from consumer.images.sources import display, forbidden
from consumer.images.sources.body import Body, Pace, left_seconds
from consumer.images.sources.host_limiter import HopelessError, HostLimiter
from consumer.images.sources.hosts import HostRules, NotAllowedError
from consumer.images.sources.responses import refusal, verdicts
from consumer.images.sources.sessions import open_session
from consumer.settings import ConsumerSettings
from schemas import Code

_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """Asks with one session, which connects to nothing but what `rules` allow.

    Waiting for a turn at a host, and for memory, counts in no deadline.
    """

    rules: HostRules
    session: ClientSession
    turns: HostLimiter
    pace: Pace

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
            body = Body(uri=uri, max_bytes=max_bytes, budget=budget, held=held, pace=self.pace)
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

    async def _follow(self, uri: str, body: Body) -> bytes:
        url, seconds = self.rules.target(uri), self.pace.total_seconds
        for _ in range(1 + _MAX_REDIRECTS):
            assert url.raw_host is not None
            async with (
                self.turns.turn(url.raw_host),
                verdicts(uri, "its host"),
                asyncio.timeout(seconds) as clock,
                self.session.get(url, allow_redirects=False) as response,
            ):
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    _check(uri, response)
                    return await body.read(response, clock)
                seconds = left_seconds(clock)
            url = self._redirected(url, location)
        raise NotAllowedError(f"over {_MAX_REDIRECTS} redirects")

    def _redirected(self, origin: URL, location: str) -> URL:
        # urljoin would take the host of the origin for the one that `http:///path` lacks.
        absolute = _SCHEME.match(location)
        try:
            url = self.rules.target(location if absolute else urljoin(str(origin), location))
        except (NotAllowedError, ValueError) as exc:
            raise NotAllowedError(f"it redirects, and {exc}") from exc
        if origin.scheme == "https" and url.scheme != "https":
            raise NotAllowedError("it redirects from https to http")
        return url


@asynccontextmanager
async def open_http(
    settings: ConsumerSettings, resolver: AbstractResolver | None = None
) -> AsyncIterator[HttpSource]:
    """Open a source for the hosts of the settings; `resolver` instead of the system's servers.

    Raises:
        FatalError: a host or a network is not one, or HTTP_CA_FILE cannot be read.
    """
    rules = HostRules.parse(
        settings.allowed_hosts,
        public=settings.allow_public_hosts,
        networks=settings.allowed_networks,
    )
    turns = HostLimiter(
        at_once=settings.http_per_host,
        max_crowd=settings.records_in_flight // 4,
        max_age_seconds=settings.retry_max_age_seconds,
    )
    async with open_session(settings, rules, resolver) as session:
        yield HttpSource(rules=rules, session=session, turns=turns, pace=Pace.of(settings))


def _check(uri: str, response: ClientResponse) -> None:
    if response.status != 200:
        raise refusal(uri, response, time.time(), "its host")
    # Not asked for, and what it would unpack to has no bound.
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Failed(Code.IMAGE_UNAVAILABLE, f"{display(uri)}: its host sends it compressed")
