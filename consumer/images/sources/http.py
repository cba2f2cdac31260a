"""`http:` and `https:` references: from allowed hosts, or from any that is on the public internet.

This runs in the consumer's own process, which holds the limits of each host. A fetching process
sends the requests (`Ask`). A redirect is followed here, and passes all checks again.
"""

import re
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import quote, urljoin

from yarl import URL

from consumer.errors import Failed
from consumer.images.byte_budget import Reservation
from consumer.images.sources import forbidden
from consumer.images.sources.host_limiter import HostLimiter, HostOverloaded, Visit
from consumer.images.sources.hosts import HostRules, NotAllowedError
from imagelane.uris import display
from schemas import Code

_MAX_REDIRECTS: Final = 3
# Scheme and authority, whatever they are; `HostRules` judges them, and encodes a name itself.
_ORIGIN: Final = re.compile(r"([^/?#]*(?://[^/?#]*)?)(.*)", re.DOTALL)
_KEPT: Final = "".join(map(chr, range(128))).replace(" ", "")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

Content = TypeVar("Content", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """An answer that names another URL; `left_seconds` of the host's time remain."""

    location: str
    left_seconds: float


class VisitedRoom:
    """The memory of a reservation; waiting for it does not count against the host."""

    def __init__(self, reservation: Reservation, visit: Visit) -> None:
        self._reservation = reservation
        self._visit = visit

    def try_resize(self, byte_length: int) -> bool:
        """Hold that many bytes if they fit now; False if they do not."""
        return self._reservation.try_resize(byte_length)

    async def resize(self, byte_length: int) -> None:
        """Wait until that many bytes in all may be held."""
        with self._visit.waiting_for_memory():
            await self._reservation.resize(byte_length)


class Ask(Protocol[Content]):
    """Asks one host, once."""

    async def __call__(
        self, uri: str, url: URL, max_bytes: int, seconds: float, room: VisitedRoom
    ) -> Content | Redirect:
        """Return the image at `url`, or its redirect; messages name it `uri`.

        Raises:
            NotAllowedError: an address of the host is not allowed.
            Failed, Unavailable: the answer has no image, or there is no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource(Generic[Content]):
    """Fetches from hosts that `rules` allow, each for `total_seconds` in all.

    Waiting for a slot at a host, and for memory, counts in no deadline.
    """

    rules: HostRules
    limiter: HostLimiter
    ask: Ask[Content]
    total_seconds: float

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> Content:
        """Return the body of the answer, whose bytes are reserved.

        Raises:
            Failed: `forbidden_source` (URL, host or address not allowed, here or where it is
                redirected to; over 3 redirects), `not_found`, `access_denied`,
                `image_too_large`, or `image_unavailable` when trying again would not heal it.
            Unavailable: no connection, no valid certificate, an answer of 5xx or the like, a
                deadline is over.
        """
        try:
            url, seconds = self.rules.target(uri), self.total_seconds
            for _ in range(1 + _MAX_REDIRECTS):
                assert url.raw_host is not None
                async with self.limiter.slot(url.raw_host, reservation) as visit:
                    room = VisitedRoom(reservation, visit)
                    answer = await self.ask(uri, url, max_bytes, seconds, room)
                if not isinstance(answer, Redirect):
                    return answer
                url, seconds = self._redirected(url, answer.location), answer.left_seconds
            raise NotAllowedError(f"over {_MAX_REDIRECTS} redirects")
        except NotAllowedError as exc:
            raise forbidden(uri, str(exc)) from exc
        except HostOverloaded as exc:
            raise Failed(
                Code.IMAGE_UNAVAILABLE,
                f"{display(uri)}: its host answers too seldom for all that wait for it",
            ) from exc

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


def _encoded(url: str) -> str:
    """Percent-encode spaces and non-ASCII in the path and query of a Location, as browsers do.

    aiohttp decodes headers as UTF-8, and keeps any other byte as a surrogate.
    """
    origin, rest = _ORIGIN.fullmatch(url).groups()  # type: ignore[union-attr]
    return origin + quote(rest.encode("utf-8", "surrogateescape"), safe=_KEPT)
