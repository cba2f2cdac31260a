"""One HTTP request to a host: its addresses, its headers, and the meaning of its answer.

This runs in a fetching process. A name is resolved once, every address of it is checked, and only
checked addresses are connected to; a literal address is checked with its URL.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import ClientResponse, ClientSession
from aiohttp.abc import AbstractResolver
from yarl import URL

from consumer.errors import Failed
from consumer.images.sources import Room
from consumer.images.sources.body import Body, left_seconds
from consumer.images.sources.host_headers import HostHeaders
from consumer.images.sources.http import Redirect
from consumer.images.sources.options import FetchLimits, HttpOptions
from consumer.images.sources.responses import error_of_response, verdicts
from consumer.images.sources.sessions import open_session
from imagelane.uris import display
from schemas import Code

_REDIRECTS: Final = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequests:
    """Sends requests by one session, which connects to allowed addresses only."""

    session: ClientSession
    headers: HostHeaders
    limits: FetchLimits

    @classmethod
    def open(
        cls, options: HttpOptions, limits: FetchLimits, resolver: AbstractResolver | None = None
    ) -> Self:
        """Open the session; `resolver` instead of the system's servers.

        Raises:
            FatalError: a host, a network or a header is not one, or HTTP_CA_FILE cannot be read.
        """
        rules = options.rules()
        headers = HostHeaders.parse(options.headers, rules)
        session = open_session(
            limits,
            rules,
            proxy=options.proxy,
            ca_file=options.ca_file,
            user_agent=options.user_agent,
            resolver=resolver,
        )
        return cls(session=session, headers=headers, limits=limits)

    async def ask(
        self, uri: str, url: URL, max_bytes: int, seconds: float, room: Room
    ) -> bytes | Redirect:
        """Satisfy `http.Ask`."""
        body = Body(uri=uri, max_bytes=max_bytes, room=room, limits=self.limits)
        async with (
            verdicts(uri, "its host"),
            asyncio.timeout(seconds) as clock,
            self.session.get(url, headers=self.headers.of(url), allow_redirects=False) as response,
        ):
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location is not None:
                return Redirect(location=location, left_seconds=left_seconds(clock))
            _check(uri, response)
            return await body.read(response, clock)


def _check(uri: str, response: ClientResponse) -> None:
    if response.status != 200:
        raise error_of_response(uri, response, time.time(), "its host")
    # It was not asked for, and its unpacked size has no bound.
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Failed(Code.IMAGE_UNAVAILABLE, f"{display(uri)}: its host sends it compressed")
