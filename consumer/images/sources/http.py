"""`http:` and `https:` references: from allowed hosts, or from any that is on the public internet.

A name is resolved once, every address of it is checked, and only what was checked is connected to;
a literal address is checked with its URL. Redirects are followed here, by the whole way again.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urljoin

from aiohttp import ClientResponse, ClientSession
from aiohttp.abc import AbstractResolver
from yarl import URL

from consumer.errors import Failed
from consumer.images.byte_budget import Reservation
from consumer.images.loop_clock import LoopClock, every_tick
from consumer.images.sources import forbidden
from consumer.images.sources.body import Body, FetchLimits, left_seconds
from consumer.images.sources.host_headers import HostHeaders
from consumer.images.sources.host_limiter import HostLimiter, HostOverloaded
from consumer.images.sources.hosts import HostRules, NotAllowedError
from consumer.images.sources.responses import error_of_response, verdicts
from consumer.images.sources.sessions import open_session
from imagelane.uris import display
from schemas import Code

_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = {301, 302, 303, 307, 308}
# Scheme and authority, whatever they are; `HostRules` judges them, and encodes a name itself.
_ORIGIN: Final = re.compile(r"([^/?#]*(?://[^/?#]*)?)(.*)", re.DOTALL)
_KEPT: Final = "".join(map(chr, range(128))).replace(" ", "")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """Asks with one session, which connects to nothing but what `rules` allow.

    Waiting for a slot at a host, and for memory, counts in no deadline.
    """

    rules: HostRules
    session: ClientSession
    headers: HostHeaders
    limiter: HostLimiter
    limits: FetchLimits

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> bytes:
        """Return the body of the answer; what was read is reserved, and little more.

        Raises:
            Failed: `forbidden_source` (URL, host or address not allowed, here or where it is
                redirected to; over 3 redirects), `not_found`, `access_denied`,
                `image_too_large`, or `image_unavailable` when trying again would not heal it.
            Unavailable: no connection, no valid certificate, an answer of 5xx or the like, a
                deadline is over.
        """
        body = Body(uri=uri, max_bytes=max_bytes, reservation=reservation, limits=self.limits)
        try:
            return await self._follow(uri, body)
        except NotAllowedError as exc:
            raise forbidden(uri, str(exc)) from exc
        except HostOverloaded as exc:
            raise Failed(
                Code.IMAGE_UNAVAILABLE,
                f"{display(uri)}: its host answers too seldom for all that wait for it",
            ) from exc

    async def _follow(self, uri: str, body: Body) -> bytes:
        url, seconds = self.rules.target(uri), self.limits.total_seconds
        for _ in range(1 + _MAX_REDIRECTS):
            assert url.raw_host is not None
            async with (
                self.limiter.slot(url.raw_host, body.reservation) as visit,
                verdicts(uri, "its host"),
                asyncio.timeout(seconds) as clock,
                self.session.get(
                    url, headers=self.headers.of(url), allow_redirects=False
                ) as response,
            ):
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    _check(uri, response)
                    return await body.read(response, clock, visit.waiting_for_memory)
                seconds = left_seconds(clock)
            url = self._redirected(url, location)
        raise NotAllowedError(f"over {_MAX_REDIRECTS} redirects")

    def _redirected(self, origin: URL, location: str) -> URL:
        # urljoin would take the host of the origin for the one that `http:///path` lacks.
        absolute = _SCHEME.match(location)
        try:
            target = location if absolute else urljoin(str(origin), location)
            url = self.rules.target(_encoded(target))
        except (NotAllowedError, ValueError) as exc:
            raise NotAllowedError(f"it redirects, and {exc}") from exc
        if origin.scheme == "https" and url.scheme != "https":
            raise NotAllowedError("it redirects from https to http")
        return url


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Which hosts are asked, and how; `headers` as HTTP_HEADERS has them."""

    allowed_hosts: tuple[str, ...]
    allow_public: bool
    networks: tuple[str, ...]
    proxy: str | None
    ca_file: str | None
    user_agent: str
    headers: str = field(repr=False)
    per_host: int
    max_waiters: int
    max_age_seconds: float


@asynccontextmanager
async def open_http(
    options: HttpOptions,
    limits: FetchLimits,
    clock: LoopClock,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[HttpSource]:
    """Open a source for the hosts of the options; `resolver` instead of the system's servers.

    Raises:
        FatalError: a host, a network or a header is not one, or HTTP_CA_FILE cannot be read.
    """
    rules = HostRules.parse(
        options.allowed_hosts, public=options.allow_public, networks=options.networks
    )
    headers = HostHeaders.parse(options.headers, rules)
    limiter = HostLimiter(
        at_once=options.per_host,
        max_waiters=options.max_waiters,
        max_age_seconds=options.max_age_seconds,
        clock=clock,
    )
    session = open_session(
        limits,
        rules,
        proxy=options.proxy,
        ca_file=options.ca_file,
        user_agent=options.user_agent,
        resolver=resolver,
    )
    async with session, every_tick(limiter.sweep):
        yield HttpSource(
            rules=rules, session=session, headers=headers, limiter=limiter, limits=limits
        )


def _encoded(url: str) -> str:
    """Percent-encode spaces and non-ASCII in the path and query of a Location, as browsers do.

    aiohttp decodes headers as UTF-8, and keeps any other byte as a surrogate.
    """
    origin, rest = _ORIGIN.fullmatch(url).groups()  # type: ignore[union-attr]
    return origin + quote(rest.encode("utf-8", "surrogateescape"), safe=_KEPT)


def _check(uri: str, response: ClientResponse) -> None:
    if response.status != 200:
        raise error_of_response(uri, response, time.time(), "its host")
    # Not asked for, and what it would unpack to has no bound.
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Failed(Code.IMAGE_UNAVAILABLE, f"{display(uri)}: its host sends it compressed")
