"""Which URLs may be asked, and which addresses their hosts may have. Pure.

A URL is parsed once, strictly, and built again from the checked parts. Whatever two parsers could
read differently is refused. A host is either a name or an address in
its usual form; every other spelling of an address is refused.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

import idna
from yarl import URL

from consumer.images.sources.addresses import is_public
from imagelane.exits import ExitCode, FatalError

_MAX_URL_CHARS: Final = 8192
_MAX_HOST_CHARS: Final = 253
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/?#]+)(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE)
# No @ (a user), no % (an encoded host, a zone), no space; a port has digits.
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^][:@%\s]+)(?::([0-9]{1,5}))?")
_NAME: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*([a-z0-9_-]{1,63})")
# What the WHATWG's URL standard and inet_aton(3) take for a number.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class NotAllowedError(Exception):
    """A URL that may not be asked, or an address that may not be connected to, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedHost:
    """A name or an address; with `below`, the names below it as well. No port: the default one."""

    host: str
    below: bool
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `images.example.com`, `.example.org`, `192.0.2.1` or `[2001:db8::1]`, or with :port.

        Raises:
            FatalError: it is none of them.
        """
        below = text.startswith(".")
        try:
            host, port = _authority(text.removeprefix("."))
            if below and _literal(host):
                raise NotAllowedError("no names are below an address")
        except NotAllowedError as exc:
            raise FatalError(
                ExitCode.SETTINGS, f"ALLOWED_HOSTS: {text}: {exc}; give host, .domain or host:port"
            ) from exc
        return cls(host=host, below=below, port=port)

    def has(self, host: str, port: int, default_ports: frozenset[int]) -> bool:
        """Tell whether this entry allows `host` at `port`."""
        named = host == self.host or (self.below and host.endswith(f".{self.host}"))
        return named and (port == self.port if self.port else port in default_ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """The allowed hosts; with `public`, also every host with public addresses only.

    The allowed hosts may also have addresses in `networks`, the public ones never.
    """

    allowed: tuple[AllowedHost, ...]
    public: bool = False
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, allowed: tuple[str, ...], *, public: bool, networks: tuple[str, ...]) -> Self:
        """Read ALLOWED_HOSTS and ALLOWED_NETWORKS.

        Raises:
            FatalError: an entry is not one.
        """
        hosts = tuple(map(AllowedHost.parse, allowed))
        return cls(allowed=hosts, public=public, networks=tuple(map(_network, networks)))

    def target(self, uri: str) -> URL:
        """Return the URL to ask, built from checked parts: ASCII host, no user, no fragment.

        Raises:
            NotAllowedError: it is malformed, or its host, port or literal address is not allowed.
        """
        if len(uri) > _MAX_URL_CHARS:
            raise NotAllowedError(f"longer than {_MAX_URL_CHARS} characters")
        parts = _URL.fullmatch(uri)
        if parts is None or "\\" in uri:
            raise NotAllowedError("not a plain http or https URL")
        scheme, authority, path, query = parts[1].lower(), parts[2], parts[3] or "/", parts[4] or ""
        if not re.fullmatch(r"[!-~]*", path + query):
            raise NotAllowedError("spaces, control and non-ASCII characters must be encoded")
        host, given_port = _authority(authority)
        default_port = _DEFAULT_PORTS[scheme]
        port = default_port if given_port is None else given_port
        listed = self._lists(host, port, frozenset({default_port}))
        if not listed and not (self.public and port == default_port):
            raise NotAllowedError("its host is not allowed (ALLOWED_HOSTS)")
        if address := _literal(host):
            self._check(address, listed=listed)
        return URL.build(
            scheme=scheme,
            host=f"[{host}]" if ":" in host else host,
            port=None if port == default_port else port,
            path=path,
            query_string=query,
            encoded=True,
        )

    def check(self, host: str, port: int, address: Address) -> None:
        """Check one address of the name `host`.

        Raises:
            NotAllowedError: it may not be connected to.
        """
        ports = frozenset(_DEFAULT_PORTS.values())
        self._check(address, listed=self._lists(host, port, ports))

    def check_any(self, address: Address) -> None:
        """Check an address of an unknown host: refuse one that no host may have.

        Raises:
            NotAllowedError: it may not be connected to.
        """
        self._check(address, listed=True)

    def _lists(self, host: str, port: int, default_ports: frozenset[int]) -> bool:
        return any(entry.has(host, port, default_ports) for entry in self.allowed)

    def _check(self, address: Address, *, listed: bool) -> None:
        own = listed and any(address in network for network in self.networks)
        if not own and not is_public(address):
            raise NotAllowedError("the address of its host is not allowed")


def _authority(text: str) -> tuple[str, int | None]:
    """Return the host, normalised and without brackets, and the port."""
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        raise NotAllowedError("its host must be a name or an address, with no user and no escapes")
    port = None if parts[2] is None else int(parts[2])
    if port is not None and not 0 < port < 65_536:
        raise NotAllowedError("not a port")
    return _host(parts[1]), port


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError as exc:
            raise NotAllowedError("not an IPv6 address") from exc
    try:
        name = text if text.isascii() else idna.encode(text, uts46=True).decode()
    except (idna.IDNAError, UnicodeError) as exc:
        raise NotAllowedError("not an internationalised name") from exc
    name = name.lower()
    labels = _NAME.fullmatch(name)
    if labels is None or len(name) > _MAX_HOST_CHARS:
        raise NotAllowedError("not a host name")
    if _NUMBER.fullmatch(labels[1]) and _literal(name) is None:
        raise NotAllowedError("an address must be in its usual form")
    return name


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise FatalError(
            ExitCode.SETTINGS, f"ALLOWED_NETWORKS: {text}: give a network, 10.0.0.0/8"
        ) from exc
