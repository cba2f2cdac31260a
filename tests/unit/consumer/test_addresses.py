"""What is public, in which forms an address may come, and that nothing else is connected to."""

# ruff: noqa: RUF001 - characters that look like others are the point

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from aiohttp import AsyncResolver, ThreadedResolver
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from consumer.errors import Failed
from consumer.image_sources import fetch_limits
from consumer.images.sources.addresses import is_public
from consumer.images.sources.hosts import AllowedHost, HostRules, NotAllowedError
from consumer.images.sources.sessions import open_session
from imagelane.exits import FatalError
from schemas import Code
from tests.fakes import fetched
from tests.hostile_http import IMAGE, Names, Server, http_settings, opened, serving

# Spellings of loopback, and of what is worse to reach than loopback; PORT is where a server listens
# on loopback, which must see nothing. A host that could be allowed is allowed in the tests.
FORMS = [
    "127.0.0.1:PORT",
    "127.0.0.2:PORT",
    "127.255.255.254:PORT",
    "127.1:PORT",
    "127.0.1:PORT",
    "2130706433:PORT",
    "0x7f000001:PORT",
    "0x7f.0x0.0x0.0x1:PORT",
    "0X7F.1:PORT",
    "0x7f.1:PORT",
    "0177.0.0.1:PORT",
    "0177.1:PORT",
    "017700000001:PORT",
    "00000000000000000000177.0.0.1:PORT",
    "127.0.0.01:PORT",
    "127.0.0x0.1:PORT",
    "127.0.0.1.:PORT",
    "127.0.0.1..:PORT",
    ".127.0.0.1:PORT",
    "127..0.1:PORT",
    "127.0.0.256:PORT",
    "4294967297:PORT",
    "0:PORT",
    "0.0.0.0:PORT",
    "0x:PORT",
    "１２７.０.０.１:PORT",
    "127。0。0。1:PORT",
    "127．0．0．1:PORT",
    "127｡0｡0｡1:PORT",
    "①②⑦.0.0.1:PORT",
    "²130706433:PORT",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT",
    "loc\u00adalhost:PORT",
    "localhost:PORT",
    "LOCALHOST:PORT",
    "localhost.:PORT",
    "%31%32%37.0.0.1:PORT",
    "127%2e0%2e0%2e1:PORT",
    "loc%61lhost:PORT",
    "localhost%00:PORT",
    "127.0.0.1%00.image.test:PORT",
    "[::1]:PORT",
    "[0:0:0:0:0:0:0:1]:PORT",
    "[0000:0000:0000:0000:0000:0000:0000:0001]:PORT",
    "[::]:PORT",
    "[::127.0.0.1]:PORT",
    "[::7f00:1]:PORT",
    "[::ffff:127.0.0.1]:PORT",
    "[::FFFF:7f00:1]:PORT",
    "[0:0:0:0:0:ffff:127.0.0.1]:PORT",
    "[::ffff:0:127.0.0.1]:PORT",
    "[64:ff9b::127.0.0.1]:PORT",
    "[64:ff9b:1::7f00:1]:PORT",
    "[2002:7f00:1::]:PORT",
    "[2002:a9fe:a9fe::1]:PORT",
    "[2001:0:7f00:1::]:PORT",
    "[2001:0:808:808:0:0:80ff:fffe]:PORT",
    "[2a00:1450::5efe:7f00:1]:PORT",
    "[2a00:1450::200:5efe:a9fe:a9fe]:PORT",
    "[fe80::5efe:7f00:1]:PORT",
    "[fe80::1%25lo]:PORT",
    "[fe80::1%lo]:PORT",
    "[::1%25lo]:PORT",
    "[::1%lo]:PORT",
    "[fec0::1]:PORT",
    "[fd00:ec2::254]:PORT",
    "[ff02::1]:PORT",
    "[100::1]:PORT",
    "[2001:db8::1]:PORT",
    "[3fff::1]:PORT",
    "[v1.127.0.0.1]:PORT",
    "[127.0.0.1]:PORT",
    "[::1:PORT",
    "::1:PORT",
    "::1]:PORT",
    "[[::1]]:PORT",
    "user@127.0.0.1:PORT",
    "user:password@127.0.0.1:PORT",
    "image.test@127.0.0.1:PORT",
    "image.test:80@127.0.0.1:PORT",
    "@127.0.0.1:PORT",
    "127.0.0.1:PORT@image.test",
    "image.test\\@127.0.0.1:PORT",
    "127.0.0.1:PORT\\.image.test",
    "image.test :PORT",
    " 127.0.0.1:PORT",
    "127.0.0.1 :PORT",
    "127.0.0.1\t:PORT",
    "127.0.0.1\r\n:PORT",
    "127.0.0.1\0:PORT",
    "127.0.0.1:PORT:PORT",
    "127.0.0.1:+PORT",
    "127.0.0.1:PORT ",
    "127.0.0.1:０PORT",
    "127.0.0.1:65536",
    "127.0.0.1:0",
    "127.0.0.1:-1",
    "127.0.0.1:",
    "127.0.0.1:0xPORT",
    ":PORT",
    "",
    "10.0.0.1:PORT",
    "100.100.100.200:PORT",
    "168.63.129.16:PORT",
    "169.254.169.254:PORT",
    "0xa9fea9fe:PORT",
    "2852039166:PORT",
    "172.31.255.255:PORT",
    "192.0.0.192:PORT",
    "192.88.99.1:PORT",
    "192.168.0.1:PORT",
    "198.18.0.1:PORT",
    "203.0.113.1:PORT",
    "224.0.0.1:PORT",
    "240.0.0.1:PORT",
    "255.255.255.255:PORT",
    "a" * 64 + ".test:PORT",
    ".".join(["a" * 60] * 5) + ":PORT",
]


@pytest.fixture(scope="module")
def loopback() -> str:
    """Loopback of both versions, if there are both."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return "127.0.0.1"
    return "::"


@pytest.mark.parametrize("form", FORMS)
async def test_form_is_refused_and_nothing_is_connected_to(form: str, loopback: str) -> None:
    """Public hosts are allowed, and this one by its very name: its address alone forbids it."""
    async with serving(host=loopback) as server:
        text = form.replace("PORT", str(server.port))
        resolver = ThreadedResolver()  # getaddrinfo: what it makes of a name is what it is
        async with opened(
            server,
            resolver,
            allowed_hosts=_listed(text),
            allowed_networks=(),
            allow_public_hosts=True,
        ) as source:
            for uri in (f"http://{text}/a", f"http://{form.replace(':PORT', '')}/a"):
                with pytest.raises(Failed) as caught:
                    await fetched(source, uri, 1000)
                assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert server.connections == 0


def _listed(text: str) -> tuple[str, ...]:
    try:
        AllowedHost.parse(text)
    except FatalError:
        return ()
    return (text,)


def test_table_has_sixty_forms_and_more() -> None:
    """The table is what it is said to be."""
    assert len(set(FORMS)) == len(FORMS) >= 60


NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"),
    *("127.0.0.1", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.251"),
    *("239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
    *("::ffff:0:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1"),
    *("100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2a00::5efe:7f00:1"),
    *("2a00::200:5efe:808:808", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254"),
    *("fe80::1", "fe80::1%eth0", "2a00::1%eth0", "fec0::1", "ff02::1", "ff0e::1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
    *("126.255.255.255", "128.0.0.1", "168.63.129.15", "169.253.255.255", "172.15.255.255"),
    *("172.32.0.0", "192.0.1.0", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
    *("2001:200::1", "2001:4860:4860::8888", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"),
    *("2003::1", "2a00::5eff:7f00:1", "3ffe::1"),
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_special_address_is_not_public(text: str) -> None:
    """What a registry, a cloud or an IPv6 form sets apart is no place to fetch from."""
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_neighbour_of_a_special_address_is_public(text: str) -> None:
    """The bounds are exact."""
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
async def test_name_with_such_an_address_is_refused(text: str) -> None:
    """A name is judged by all its addresses; one that is wrong among good ones is enough."""
    async with serving() as server:
        resolver = Names(server.port, a_test=[[text]], b_test=[["127.0.0.1", "9.9.9.9", text]])
        async with opened(server, resolver, allow_public_hosts=True) as source:
            for name in ("a.test", "b.test"):
                with pytest.raises(Failed) as caught:
                    await fetched(source, f"http://{name}/", 1000)
                assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]"),
        *("2130706433", "127.1", "0x7f.1", "0177.0.0.1", "localhost", "127.0.0.1."),
    ],
)
async def test_session_itself_connects_to_no_such_address(host: str, loopback: str) -> None:
    """Without any check of the URL: the connection is refused by its address all the same."""
    rules = HostRules(allowed=(), public=True)
    async with (
        serving(host=loopback) as server,
        open_session(fetch_limits(http_settings()), rules, resolver=ThreadedResolver()) as session,
    ):
        with pytest.raises((NotAllowedError, ValueError)):
            await session.get(URL(f"http://{host}:{server.port}/", encoded=True))
    assert server.connections == 0


async def test_name_that_changes_after_the_check_leads_nowhere_else() -> None:
    """A real name server says 127.0.0.1 once, then 127.0.0.2, which is not allowed.

    The first fetch asks it once, and connects to what it said. The next one is refused.
    """
    answers = ["127.0.0.1", "127.0.0.2"]
    async with serving() as server, _other(server.port) as other, _name_server(answers) as at:
        for allowed in (True, False):
            resolver = AsyncResolver(nameservers=["127.0.0.1"], udp_port=at, tcp_port=at)
            async with opened(server, resolver, allowed_networks=("127.0.0.1/32",)) as source:
                uri = f"http://image.test:{server.port}/"
                if allowed:
                    assert await fetched(source, uri, 20_000) == IMAGE
                    assert answers == ["127.0.0.2"]
                else:
                    with pytest.raises(Failed) as caught:
                        await fetched(source, uri, 20_000)
                    assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert (server.connections, other.connections) == (1, 0)


async def test_allowed_host_may_be_in_an_allowed_network_and_a_public_one_may_not() -> None:
    """Networks are opened for the hosts that are named, not for every name that leads there."""
    resolver = Names(image_test=[["127.0.0.1"]], public_test=[["127.0.0.1"]])
    async with serving() as server, opened(server, resolver, allow_public_hosts=True) as source:
        assert await fetched(source, f"http://image.test:{server.port}/", 20_000) == IMAGE
        resolver.port = server.port
        with pytest.raises(Failed) as caught:
            await fetched(source, "http://public.test/", 20_000)
    assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert server.connections == 1


async def test_public_host_is_connected_to() -> None:
    """The way that the refusals above do not take is open, up to the socket."""
    rules = HostRules(allowed=(), public=True)
    assert rules.target("https://8.8.8.8/a").host == "8.8.8.8"
    assert rules.target("http://[2001:4860:4860:0::8888]:80/a").host == "2001:4860:4860::8888"
    for text in PUBLIC:
        rules.check("a.test", 443, ip_address(text))
        rules.check_any(ip_address(text))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_literal_address_can_be_allowed(host: str, loopback: str) -> None:
    """By its own name and its network, and by nothing less."""
    if host == "[::1]" and loopback != "::":
        pytest.skip("no IPv6 here")
    both = ("127.0.0.0/8", "::1/128")
    async with serving(host=loopback) as server:
        listed = (f"{host}:{server.port}",)
        uri = f"http://{host}:{server.port}/a"
        async with opened(server, allowed_hosts=listed, allowed_networks=both) as source:
            assert await fetched(source, uri, 20_000) == IMAGE
        for less in ({"allowed_networks": ()}, {"allowed_hosts": (".test", "a.1.test")}):
            settings: dict[str, Any] = {"allowed_hosts": listed, "allowed_networks": both} | less
            async with opened(server, allow_public_hosts=True, **settings) as source:
                with pytest.raises(Failed):
                    await fetched(source, uri, 20_000)
    assert server.connections == 1


# By first and last address, so that a slip in a prefix length is not made twice; from the IANA
# registries of special-purpose addresses, and RFC 3879, 4291, 5214.
RANGES_4 = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
]
RANGES_6 = [
    ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]


def _bounds(ranges: Iterable[tuple[str, str]]) -> st.SearchStrategy[int]:
    numbers = [(int(ip_address(first)), int(ip_address(last))) for first, last in ranges]
    return st.sampled_from(
        sorted({max(0, n + d) for pair in numbers for n in pair for d in (-1, 0, 1)})
    )


def _within(ranges: Iterable[tuple[str, str]], address: IPv4Address | IPv6Address) -> bool:
    return any(int(ip_address(a)) <= int(address) <= int(ip_address(b)) for a, b in ranges)


near_4 = _bounds(RANGES_4).filter(lambda n: n < 2**32).map(IPv4Address)
near_6 = _bounds(RANGES_6).filter(lambda n: n < 2**128).map(IPv6Address)


@given(near_4 | st.ip_addresses(v=4))
def test_ipv4_is_public_outside_the_registries(address: IPv4Address) -> None:
    """The networks say the same as a list of ranges that was made apart."""
    assert is_public(address) == (not _within(RANGES_4, address))


@given(near_6 | st.ip_addresses(v=6))
def test_ipv6_is_public_outside_the_registries(address: IPv6Address) -> None:
    """Likewise; and what Python knows to be special is not public either."""
    isatap = ":".join(address.exploded.split(":")[4:6]) in ("0000:5efe", "0200:5efe")
    assert is_public(address) == (not _within(RANGES_6, address) and not isatap)
    assert address.is_global or not is_public(address)


@given(near_4 | st.ip_addresses(v=4), st.integers(0, 2**64 - 1))
@example(IPv4Address("8.8.8.8"), 0x2A00_1450_4001_081B)
def test_ipv6_that_carries_ipv4_is_never_public(inner: IPv4Address, prefix: int) -> None:
    """Whatever it carries, in each form there is; the ISATAP one under any prefix."""
    number = int(inner)
    forms = [
        number,  # compatible
        0xFFFF << 32 | number,  # mapped
        0xFFFF << 48 | number,  # translated, RFC 2765
        0x64FF9B << 96 | number,
        0x64FF9B0001 << 80 | number,
        0x2002 << 112 | number << 80 | prefix,  # 6to4
        0x20010000 << 96 | prefix << 32 & (2**96 - 1) | number ^ 0xFFFFFFFF,  # Teredo's client
        0x20010000 << 96 | number << 64 | prefix,  # Teredo's server
        prefix << 64 | 0x00005EFE << 32 | number,
        prefix << 64 | 0x02005EFE << 32 | number,
    ]
    assert [form for form in forms if is_public(IPv6Address(form))] == []


@asynccontextmanager
async def _other(port: int) -> AsyncIterator[Server]:
    """Listen at 127.0.0.2, at a port that is taken at 127.0.0.1."""
    server = Server(port=port, does={})

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.2", port)
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def _name_server(answers: list[str]) -> AsyncIterator[int]:
    """Answer questions for A with each address once, any other question with none."""

    class NameServer(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, sender: Any) -> None:
            end = data.index(b"\0", 12) + 5
            question, kind = data[12:end], data[end - 4 : end - 2]
            record = b""
            if kind == b"\0\1" and answers:
                address = IPv4Address(answers.pop(0)).packed
                record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + address
            counts = b"\0\1" + (b"\0\1" if record else b"\0\0") + b"\0\0\0\0"
            self.transport.sendto(data[:2] + b"\x81\x80" + counts + question + record, sender)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
