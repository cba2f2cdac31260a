"""`http:` references from a host that is honest, and each way in which one is not."""

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import ByteBudget
from consumer.images.sources.http import HttpSource
from consumer.images.sources.responses import retry_after_seconds
from imagelane.exits import FatalError
from schemas import Code
from tests import hostile_http as hostile
from tests.fakes import fetching
from tests.hostile_http import (
    HASTY,
    IMAGE,
    MAX_BYTES,
    Names,
    answer,
    http_settings,
    http_source,
    opened,
    raw,
    redirect,
    serving,
)

NOW = 1_764_000_000
DEADLINE_SECONDS = 50  # far above the deadlines of the settings: nothing here waits for it


async def _fetch(source: HttpSource[bytes], uri: str, budget: ByteBudget | None = None) -> bytes:
    budget = budget or ByteBudget(10**6)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        fetching(source, uri, MAX_BYTES, budget) as data,
    ):
        assert budget.held_bytes >= len(data)
        return data


async def _verdict(source: HttpSource[bytes], uri: str, budget: ByteBudget | None = None) -> Failed:
    with pytest.raises(Failed) as caught:
        await _fetch(source, uri, budget)
    return caught.value


async def test_body_comes_as_it_is() -> None:
    """With a length, in chunks, or until the end of the connection: the same bytes."""
    chunked = hostile.head(Transfer_Encoding="chunked") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    does = {"/chunked": raw(chunked, close=False), "/open": raw(hostile.head() + IMAGE)}
    async with serving(does) as server, opened(server) as source:
        base = f"http://image.test:{server.port}"
        assert await _fetch(source, f"{base}/length") == IMAGE
        assert await _fetch(source, f"{base}/chunked") == b"abcde"
        assert await _fetch(source, f"{base}/open") == IMAGE


async def test_request_says_no_more_than_it_must() -> None:
    """The path goes out as it was written; no cookie, no address of ours, no referrer."""
    async with serving({"/a": answer(Set_Cookie="a=b")}) as server, opened(server) as source:
        for path in ("/a", "/b/../c%2f?X-Signature=%2B+~#part"):
            await _fetch(source, f"HTTP://IMAGE.test:{server.port}{path}")
    assert server.heads[1].split("\r\n") == [
        "GET /b/../c%2f?X-Signature=%2B+~ HTTP/1.1",
        f"Host: image.test:{server.port}",
        "User-Agent: imagelane",
        "Accept-Encoding: identity",
        "Accept: */*",
        "",
        "",
    ]
    assert server.connections == 1


async def test_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy or a netrc of the environment changes nothing."""
    async with serving() as server, opened(server) as source:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert await _fetch(source, f"http://image.test:{server.port}/a") == IMAGE


HOSTILE = {
    "silent": (hostile.silent, Code.IMAGE_UNAVAILABLE),
    "reset": (hostile.reset, Code.IMAGE_UNAVAILABLE),
    "slow head": (hostile.slow_head, Code.IMAGE_UNAVAILABLE),
    "endless head": (hostile.endless_head, Code.IMAGE_UNAVAILABLE),
    "endless hints": (hostile.endless_hints, Code.IMAGE_UNAVAILABLE),
    "trickle": (hostile.trickle, Code.IMAGE_UNAVAILABLE),
    "endless chunks": (hostile.endless_chunks, Code.IMAGE_TOO_LARGE),
    "endless trailers": (hostile.endless_trailers, Code.IMAGE_UNAVAILABLE),
    "gzip bomb": (hostile.gzip_bomb(), Code.IMAGE_UNAVAILABLE),
    "length too long": (answer(b"x", Content_Length="9"), Code.IMAGE_UNAVAILABLE),
    "length cut off": (raw(hostile.head(Content_Length="9") + b"x"), Code.IMAGE_UNAVAILABLE),
    "length over the limit": (answer(b"x", Content_Length="200001"), Code.IMAGE_TOO_LARGE),
    "length that is none": (answer(b"x", Content_Length="-1"), Code.IMAGE_UNAVAILABLE),
    "length without end": (answer(b"x", Content_Length="9" * 6000), Code.IMAGE_UNAVAILABLE),
    "body over the limit": (raw(hostile.head() + bytes(MAX_BYTES + 1)), Code.IMAGE_TOO_LARGE),
    "chunks that are none": (
        raw(hostile.head(Transfer_Encoding="chunked") + b"zz\r\n"),
        Code.IMAGE_UNAVAILABLE,
    ),
    "chunks cut off": (
        raw(hostile.head(Transfer_Encoding="chunked") + b"5\r\nab"),
        Code.IMAGE_UNAVAILABLE,
    ),
    "both lengths": (
        raw(
            hostile.head(Transfer_Encoding="chunked", Content_Length="1") + b"2\r\nab\r\n0\r\n\r\n"
        ),
        Code.IMAGE_UNAVAILABLE,
    ),
    "no http": (raw(b"\x00\xff" * 500), Code.IMAGE_UNAVAILABLE),
    "nothing": (raw(b""), Code.IMAGE_UNAVAILABLE),
    "long header": (answer(X="y" * 70_000), Code.IMAGE_UNAVAILABLE),
    "many headers": (answer(IMAGE, **{f"X{n}": "y" for n in range(500)}), Code.IMAGE_UNAVAILABLE),
    "broken cookie": (answer(b"", "404 No", Set_Cookie='\x01=;="\xff'), Code.NOT_FOUND),
}

ENDED_BY_A_DEADLINE = {"silent", "slow head", "endless hints", "trickle", "length too long"}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_answer_has_its_code_within_its_deadline(name: str) -> None:
    """Whatever a host does, it is a verdict in time, and no memory stays held."""
    behaviour, code = HOSTILE[name]
    budget = ByteBudget(10**6)
    deadlines = HASTY if name in ENDED_BY_A_DEADLINE else {}
    async with serving({"/a": behaviour}) as server, opened(server, **deadlines) as source:
        verdict = await _verdict(source, f"http://image.test:{server.port}/a", budget)
    assert verdict.code is code
    assert budget.held_bytes == 0


_lines = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 302 Found", b"HTTP/1.1 100 Continue", b"HTTP/9.9 0 "),
        *(b"HTTP/1.1 101 Switching Protocols", b"Connection: upgrade", b"Upgrade: h2c"),
        *(b"Content-Length: 3", b"Content-Length: +3", b"Content-Length: 99999999999999999999"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b" folded"),
        *(b"Content-Encoding: br", b"Retry-After: \xb2", b"Set-Cookie: a=\xff;;=;", b": nothing"),
        *(b"Location: //\xff:x/", b"Location: http://[", b"Location: ?", b"Location:"),
        *(b"", b"3", b"abc", b"0", b"ffffffffffffffffff", b"-1", b"\x00", b"\xff" * 9, b"a" * 9000),
    ]
)


@given(st.lists(_lines, max_size=12), st.sampled_from([b"\r\n", b"\n", b"\r"]))
def test_any_answer_is_an_image_or_a_verdict(lines: list[bytes], end: bytes) -> None:
    """Bytes that are nearly HTTP, in any order: no other error gets out."""

    async def run() -> None:
        data = end.join([b"HTTP/1.1 200 OK", *lines])
        async with serving({"/a": raw(data)}) as server, opened(server) as source:
            with contextlib.suppress(Failed):
                await _fetch(source, f"http://image.test:{server.port}/a")

    asyncio.run(run())


async def test_more_than_was_promised_is_left() -> None:
    """A body longer than its length ends there, and the rest is not read as the next answer."""
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    does = {"/a": answer(b"image" + poison, Content_Length="5")}
    async with serving(does) as server, opened(server) as source:
        base = f"http://image.test:{server.port}"
        assert await _fetch(source, f"{base}/a") == b"image"
        assert await _fetch(source, f"{base}/b") == IMAGE


@pytest.mark.parametrize(
    ("status", "code", "heals"),
    [
        ("201 Created", Code.IMAGE_UNAVAILABLE, True),
        ("202 Accepted", Code.IMAGE_UNAVAILABLE, True),
        ("204 No Content", Code.IMAGE_UNAVAILABLE, True),
        ("206 Partial Content", Code.IMAGE_UNAVAILABLE, True),
        ("300 Multiple Choices", Code.IMAGE_UNAVAILABLE, True),
        ("302 Found", Code.IMAGE_UNAVAILABLE, True),  # to nowhere
        ("304 Not Modified", Code.IMAGE_UNAVAILABLE, True),
        ("400 Bad Request", Code.IMAGE_UNAVAILABLE, False),
        ("401 Unauthorized", Code.ACCESS_DENIED, False),
        ("403 Forbidden", Code.ACCESS_DENIED, False),
        ("404 Not Found", Code.NOT_FOUND, False),
        ("408 Request Timeout", Code.IMAGE_UNAVAILABLE, True),
        ("410 Gone", Code.NOT_FOUND, False),
        ("425 Too Early", Code.IMAGE_UNAVAILABLE, True),
        ("429 Too Many Requests", Code.IMAGE_UNAVAILABLE, True),
        ("451 Unavailable For Legal Reasons", Code.IMAGE_UNAVAILABLE, False),
        ("500 Internal Server Error", Code.IMAGE_UNAVAILABLE, True),
        ("503 Service Unavailable", Code.IMAGE_UNAVAILABLE, True),
        ("999 Unknown", Code.IMAGE_UNAVAILABLE, True),
    ],
)
async def test_status_has_its_code(status: str, code: Code, heals: bool) -> None:
    """Only 200 is an image; what may heal is tried again, after what the host asks for."""
    async with (
        serving({"/a": answer(b"", status, Retry_After="7")}) as server,
        opened(server) as source,
    ):
        verdict = await _verdict(source, f"http://image.test:{server.port}/a")
    assert (verdict.code, isinstance(verdict, Unavailable)) == (code, heals)
    assert not isinstance(verdict, Unavailable) or verdict.retry_after_seconds == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0),
        ("Mon, 24 Nov 2025 16:00:00", None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, None),
        ("Fri, 99 Foo 99999999999 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: int | None) -> None:
    """Anything else says nothing, and a date that has passed says now."""
    assert retry_after_seconds(text, NOW) == pytest.approx(seconds) or seconds is None


async def test_redirects_are_followed_three_times() -> None:
    """Relative or absolute, to the same host or another that is allowed."""
    async with serving() as server:
        base = f"http://image.test:{server.port}"
        server.does |= {
            "/0": redirect(f"{base}/1", "301 Moved"),
            "/1": redirect("/2?x=y", "307 Temporary"),
            "/2?x=y": redirect(f"//image.test:{server.port}/3", "308 Permanent"),
            "/more": redirect("0"),
        }
        async with opened(server) as source:
            assert await _fetch(source, f"{base}/0") == IMAGE
            assert (await _verdict(source, f"{base}/more")).code is Code.FORBIDDEN_SOURCE
    assert server.paths == ["/0", "/1", "/2?x=y", "/3", "/more", "/0", "/1", "/2?x=y"]


async def test_redirect_loop_ends() -> None:
    """A loop is over with the fourth answer."""
    async with serving({"/a": redirect("/a")}) as server, opened(server) as source:
        verdict = await _verdict(source, f"http://image.test:{server.port}/a")
    assert verdict.code is Code.FORBIDDEN_SOURCE
    assert server.paths == ["/a"] * 4


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.test/computeMetadata/v1/",
        "http://[fd00:ec2::254]/",
        "http://other.test/",
        "http://image.test:1/",
        "http://user:secret@image.test/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http:///etc/passwd",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "ftp://image.test/",
        "javascript:1",
        "http://[::1",
        "http://image.test\\@other.test/",
        "//other.test/",
        "http://\xff/",
    ],
)
async def test_redirect_elsewhere_is_forbidden(location: str) -> None:
    """Each hop passes the whole check; nothing that is refused is connected to."""
    resolver = Names(image_test=[["127.0.0.1"]], metadata_test=[["169.254.169.254"]])
    async with serving() as server, serving() as other:
        resolver.answers["other.test"] = [["127.0.0.1"]]
        server.does["/a"] = redirect(location)
        async with opened(server, resolver, allow_public_hosts=location.endswith("v1/")) as source:
            verdict = await _verdict(source, f"http://image.test:{server.port}/a")
    assert verdict.code is Code.FORBIDDEN_SOURCE
    assert "secret" not in str(verdict)
    assert (server.paths, other.connections) == (["/a"], 0)


async def test_redirect_in_raw_utf8_is_encoded_and_checked() -> None:
    """As browsers do; a byte that is no UTF-8 goes back as it came, and %2F stays what it is."""
    async with serving() as server:
        base = f"http://image.test:{server.port}"
        server.does |= {
            "/0": redirect("/käse à.jpg?q=ü#ß".encode().decode("latin-1")),
            "/k%C3%A4se%20%C3%A0.jpg?q=%C3%BC": redirect(f"{base}/b%2F\xff"),
            "/out": redirect("http://ünder.test/ü".encode().decode("latin-1")),
        }
        async with opened(server) as source:
            assert await _fetch(source, f"{base}/0") == IMAGE
            assert (await _verdict(source, f"{base}/out")).code is Code.FORBIDDEN_SOURCE
    assert server.paths == ["/0", "/k%C3%A4se%20%C3%A0.jpg?q=%C3%BC", "/b%2F%FF", "/out"]


async def test_header_of_up_to_64_kib_is_read() -> None:
    """Some hosts send long policies. A longer one is said to be that, and not asked for again."""
    does = {"/a": answer(X="y" * 60_000), "/b": answer(X="y" * 70_000)}
    async with serving(does) as server, opened(server) as source:
        base = f"http://image.test:{server.port}"
        assert await _fetch(source, f"{base}/a") == IMAGE
        verdict = await _verdict(source, f"{base}/b")
    assert not isinstance(verdict, Unavailable)
    assert verdict.message == f"{base}/b: its host sends a header of over 65536 bytes"


async def test_user_agent_is_a_setting() -> None:
    """Some hosts answer nobody who gives no contact."""
    agent = "pictures/2.0 (+mailto:ops@example.org)"
    async with serving() as server, opened(server, http_user_agent=agent) as source:
        await _fetch(source, f"http://image.test:{server.port}/a")
    assert f"User-Agent: {agent}" in server.heads[0].split("\r\n")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that nobody knows but who is told."""
    return trustme.CA()


def _tls(authority: trustme.CA, name: str = "image.test") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    """The authority as HTTP_CA_FILE takes it."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


async def test_https_with_an_authority_of_ones_own(authority: trustme.CA, ca_file: str) -> None:
    """The name is what is asked for, whatever the address."""
    async with (
        serving(tls=_tls(authority)) as server,
        opened(server, http_ca_file=ca_file) as source,
    ):
        assert await _fetch(source, f"https://image.test:{server.port}/a") == IMAGE


@pytest.mark.parametrize("fault", ["unknown authority", "another name", "no TLS at all"])
async def test_invalid_certificate_is_no_connection(
    authority: trustme.CA, ca_file: str, fault: str
) -> None:
    """Nothing is asked of a host that cannot prove its name."""
    tls = {"unknown authority": _tls(authority), "another name": _tls(authority, "b.test")}
    settings: dict[str, Any] = {"http_ca_file": None if fault == "unknown authority" else ca_file}
    settings |= HASTY if fault == "no TLS at all" else {}
    async with serving(tls=tls.get(fault)) as server, opened(server, **settings) as source:
        verdict = await _verdict(source, f"https://image.test:{server.port}/a")
    assert verdict.code is Code.IMAGE_UNAVAILABLE
    assert ("certificate" in verdict.message) == (fault != "no TLS at all")
    assert server.heads == []


async def test_https_is_not_left_for_http(authority: trustme.CA, ca_file: str) -> None:
    """A redirect may make it safer, never less safe."""
    async with serving() as plain, serving(tls=_tls(authority)) as safe:
        hosts = (f"image.test:{plain.port}", f"image.test:{safe.port}")
        safe.does["/a"] = redirect(f"http://image.test:{plain.port}/b")
        plain.does["/c"] = redirect(f"https://image.test:{safe.port}/d")
        async with opened(safe, allowed_hosts=hosts, http_ca_file=ca_file) as source:
            verdict = await _verdict(source, f"https://image.test:{safe.port}/a")
            assert await _fetch(source, f"http://image.test:{plain.port}/c") == IMAGE
    assert verdict.code is Code.FORBIDDEN_SOURCE
    assert plain.paths == ["/c"]


async def test_egress_proxy_does_the_connecting() -> None:
    """Names are not resolved here, its own address may be private; which hosts, is decided here."""
    resolver = Names()
    async with serving() as proxy:
        settings = {"egress_proxy": f"http://127.0.0.1:{proxy.port}", "allow_public_hosts": True}
        async with opened(proxy, resolver, allowed_networks=(), **settings) as source:
            assert await _fetch(source, "http://public.test/a") == IMAGE
            for uri in ("http://169.254.169.254/", "http://public.test:22/"):
                assert (await _verdict(source, uri)).code is Code.FORBIDDEN_SOURCE
    assert proxy.paths == ["http://public.test/a"]
    assert resolver.asked == []


async def test_nobody_there_is_unavailable() -> None:
    """No such name, no such port, no answer to the connection: each may heal."""
    async with serving() as server:
        pass
    resolver = Names(image_test=[["127.0.0.1"]])
    async with opened(server, resolver, allow_public_hosts=True) as source:
        for uri in (f"http://image.test:{server.port}/a", "http://no.test/"):
            verdict = await _verdict(source, uri)
            assert isinstance(verdict, Unavailable)
            assert "127.0" not in str(verdict)


async def test_connection_that_is_not_taken_ends_in_time() -> None:
    """A host whose queue of connections is full is unavailable after the connect deadline."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        port = listening.getsockname()[1]
        full = [socket.socket() for _ in range(4)]
        for connection in full:
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        server = hostile.Server(port=port, does={})
        async with opened(server, fetch_connect_seconds=0.2) as source:
            verdict = await _verdict(source, f"http://image.test:{port}/a")
        for connection in full:
            connection.close()
    assert isinstance(verdict, Unavailable)


async def test_no_credential_is_in_any_error() -> None:
    """Not in the message, and not in what the errors below it say of themselves."""
    uris = [
        "http://user:s3cret@image.test/a",
        "http://image.test:1/a?sig=s3cret",
        "http://image.test:PORT/a?sig=s3cret",
        "http://image.test:PORT/silent?sig=s3cret#s3cret",
        "https://image.test:PORT/a?sig=s3cret",
        "http://no.test/a?sig=s3cret",
    ]
    does = {
        "/a?sig=s3cret": answer(b"", "500 s3cret", Location="http://user:s3cret@b.test/"),
        "/silent?sig=s3cret": hostile.silent,
    }
    async with (
        serving(does) as server,
        opened(server, allow_public_hosts=True, **HASTY) as source,
    ):
        for uri in uris:
            verdict = await _verdict(source, uri.replace("PORT", str(server.port)))
            assert "s3cret" not in f"{verdict!r} {verdict} {verdict.message}"


async def test_headers_of_a_host_go_to_it_alone(authority: trustme.CA, ca_file: str) -> None:
    """Not over plain HTTP, not to another port or host, not along with a redirect."""
    token = "Authorization: Bearer a-token"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("image.test", "other.test").configure_cert(tls)
    async with serving(tls=tls) as safe, serving() as plain:
        ports = (safe.port, plain.port)
        hosts = tuple(f"{name}.test:{port}" for name in ("image", "other") for port in ports)
        resolver = Names(image_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
        safe.does["/away"] = redirect(f"https://other.test:{safe.port}/there")
        headers = f"# for the archive\n\nimage.test:{safe.port} {token}\n"
        async with opened(
            safe, resolver, allowed_hosts=hosts, http_ca_file=ca_file, http_headers=headers
        ) as source:
            await _fetch(source, f"https://image.test:{safe.port}/a")
            await _fetch(source, f"https://image.test:{safe.port}/away")
            await _fetch(source, f"https://other.test:{safe.port}/b")
            await _fetch(source, f"http://image.test:{plain.port}/c")
    sent = {head.split(" ")[1]: token.lower() in head.lower() for head in safe.heads + plain.heads}
    assert sent == {"/a": True, "/away": True, "/there": False, "/b": False, "/c": False}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("image.test Authorization Bearer s3cret", "give `host Name: value`"),
        ("image.test: Authorization: s3cret", "its host"),
        ("image.test X: s3cret\x7f", "give `host Name: value`"),
        ("image.test X: s3crét", "give `host Name: value`"),
        ("image.test X:", "give `host Name: value`"),
        ("image.test Host: s3cret", "Host is not for others to set"),
        ("image.test Content-Length: 5", "Content-Length is not for others to set"),
        ("other.test X: s3cret", "its host: its host is not allowed (ALLOWED_HOSTS)"),
        ("user:s3cret@image.test X: y", "its host"),
        ("image.test X: s3cret\nimage.test x: y", "comes twice"),
    ],
)
async def test_bad_header_stops_the_start(line: str, reason: str) -> None:
    """With its line and its fault, and never with its value."""
    with pytest.raises(FatalError) as caught:
        async with http_source(http_settings(allowed_hosts=("image.test",), http_headers=line)):
            pass
    assert "HTTP_HEADERS, line" in str(caught.value)
    assert reason in str(caught.value)
    assert "s3cr" not in str(caught.value)
