"""HTTP sessions without cookies, and without settings of the environment."""

import socket
import ssl
from functools import cache, partial
from ipaddress import ip_address
from typing import Final

from aiohttp import (
    AddrInfoType,
    AsyncResolver,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult

from consumer.images.sources.hosts import HostRules
from consumer.images.sources.options import FetchLimits
from imagelane.exits import ExitCode, FatalError

# Long enough to reuse a connection between images, short enough that thousands of hosts leave few
# connections behind.
_KEEPALIVE_SECONDS: Final = 2.0
USER_AGENT: Final = "imagelane"
# aiohttp's own 8,190 are fewer than the policies that some hosts send (Content-Security-Policy).
MAX_HEADER_BYTES: Final = 65_536


def open_session(
    limits: FetchLimits,
    rules: HostRules,
    *,
    proxy: str | None = None,
    ca_file: str | None = None,
    user_agent: str = USER_AGENT,
    resolver: AbstractResolver | None = None,
) -> ClientSession:
    """Return a session for the hosts of `rules`; `resolver` instead of the system's servers.

    Raises:
        FatalError: HTTP_CA_FILE cannot be read.
    """
    # A proxy resolves and connects, so it checks the addresses; its own needs no check.
    checked = not proxy
    connector = TCPConnector(
        resolver=CheckedResolver(resolver or AsyncResolver(), rules) if checked else None,
        socket_factory=partial(_checked_socket, rules) if checked else None,
        ssl=_tls(ca_file),
        limit=0,  # the host limiter is the limit
        keepalive_timeout=_KEEPALIVE_SECONDS,
    )
    return _session(limits, connector, user_agent, proxy)


def open_trusted_session(limits: FetchLimits, ca_file: str | None = None) -> ClientSession:
    """Return a session for a host that the settings name, at whatever address.

    Raises:
        FatalError: HTTP_CA_FILE cannot be read.
    """
    return _session(limits, TCPConnector(limit=0, ssl=_tls(ca_file)), USER_AGENT)


def _session(
    limits: FetchLimits, connector: TCPConnector, user_agent: str, proxy: str | None = None
) -> ClientSession:
    return ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        proxy=proxy,
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        timeout=ClientTimeout(
            connect=limits.connect_seconds,
            sock_connect=limits.connect_seconds,
            sock_read=limits.idle_seconds,
        ),
    )


class CheckedResolver(AbstractResolver):
    """Resolves by `resolver`, and raises if one of the addresses is not allowed."""

    def __init__(self, resolver: AbstractResolver, rules: HostRules) -> None:
        self._resolver = resolver
        self._rules = rules

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name.

        Raises:
            NotAllowedError: one of its addresses is not allowed.
        """
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            self._rules.check(host, port, ip_address(result["host"]))
        return results

    async def close(self) -> None:
        """Close the resolver within."""
        await self._resolver.close()


def _checked_socket(rules: HostRules, info: AddrInfoType) -> socket.socket:
    """Return a socket for an allowed address.

    aiohttp does not ask its resolver for a literal address; the URL's check covers those. This is
    the last line of defence.
    """
    family, kind, protocol, _, address = info
    rules.check_any(ip_address(address[0]))
    return socket.socket(family, kind, protocol)


@cache  # reading the system's authorities takes 20 ms, and the sources share them
def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as exc:  # ssl.SSLError too
            reason = "not a PEM file of certificates" if isinstance(exc, ssl.SSLError) else exc
            raise FatalError(ExitCode.SETTINGS, f"HTTP_CA_FILE: {ca_file}: {reason}") from exc
    return context
