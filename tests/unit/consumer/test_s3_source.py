"""`s3:` references: which may be asked for, and what an answer means."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from botocore.credentials import RefreshableCredentials

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import ByteBudget
from consumer.images.sources.s3 import S3Source
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from schemas import Code
from tests.fakes import SECRET, fetched, fetching
from tests.s3_server import Reply, Script, answer, s3_source, scripted

LIMIT = 100
SECRET_KEY = "a-secret-key-that-nobody-may-see"


def _settings(endpoint: str, **changes: str) -> ConsumerSettings:
    return ConsumerSettings.from_env(
        {
            "SECRET_API_KEY": SECRET.decode(),
            "S3_BUCKETS": "pics,vault/open/2026/",
            "S3_ENDPOINT": endpoint,
            "S3_ACCESS_KEY_ID": "an-access-key",
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
            **changes,
        }
    )


@asynccontextmanager
async def _store(reply: Reply | bytes, **changes: str) -> AsyncIterator[tuple[S3Source, Script]]:
    async with (
        scripted(reply) as script,
        s3_source(_settings(script.endpoint, **changes)) as source,
    ):
        yield source, script


async def _verdict(reply: Reply | bytes, uri: str = "s3://pics/cat.jpg", **changes: str) -> Failed:
    async with _store(reply, **changes) as (source, _):
        with pytest.raises(Failed) as caught:
            await fetched(source, uri, LIMIT)
        return caught.value


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("s3://pics/cat.jpg", "/pics/cat.jpg"),
        ("S3://pics/a/b/cat.jpg", "/pics/a/b/cat.jpg"),
        ("s3://pics//a//b/", "/pics//a//b/"),
        ("s3://pics/cat é.jpg", "/pics/cat%20%C3%A9.jpg"),
        ("s3://pics/cat%20%C3%a9%3F%23%25.jpg", "/pics/cat%20%C3%A9%3F%23%25.jpg"),
        ("s3://pics/a%2Fb%2f%2e%2ea", "/pics/a/b/..a"),
        ("s3://pics/a+b&c=d;e:f@g~h", "/pics/a%2Bb%26c%3Dd%3Be%3Af%40g~h"),
        ("s3://pics/%252e%252e/x", "/pics/%252e%252e/x"),
        ("s3://pics/a\r\nX-Evil: 1", "/pics/a%0D%0AX-Evil%3A%201"),
        ("s3://pics/cat.jpg?versionId=3sL4kq.x_Y-~", "/pics/cat.jpg?versionId=3sL4kq.x_Y-~"),
        ("s3://vault/open/2026/cat.jpg", "/vault/open/2026/cat.jpg"),
        ("s3://vault/open/2026//cat.jpg", "/vault/open/2026//cat.jpg"),
        ("s3://vault/open%2F2026/cat.jpg", "/vault/open/2026/cat.jpg"),
    ],
)
async def test_key_is_decoded_once_and_asked_for_as_it_is(uri: str, target: str) -> None:
    """What is checked is what is asked for: one decoding, then one encoding, nothing normalised."""
    async with _store(answer("200 OK", b"cat")) as (source, script):
        assert await fetched(source, uri, LIMIT) == b"cat"
    [request] = script.requests
    assert request.startswith(f"GET {target} HTTP/1.1\r\n".encode())
    assert b"X-Evil" not in request.partition(b"\r\n")[2]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other/cat.jpg",
        "s3://PICS/cat.jpg",
        "s3://pic/s/cat.jpg",
        "s3://pics.evil.example/cat.jpg",
        "s3://pics@evil.example/cat.jpg",
        "s3://user:password@pics/cat.jpg",
        "s3://pics:443/cat.jpg",
        "s3://pi%63s/cat.jpg",
        "s3://pics%2Fcat.jpg",
        "s3://pics\\cat.jpg",
        "s3:///pics/cat.jpg",
        "s3://",
        "s3:",
        "s3:pics/cat.jpg",
        "s3:/pics/cat.jpg",
        "s3://pics",
        "s3://pics/",
        "s3://pics/..",
        "s3://pics/../vault/secret",
        "s3://pics/a/../../vault/secret",
        "s3://pics/%2e%2e/vault/secret",
        "s3://pics/.%2E%2Fvault/secret",
        "s3://pics/./cat.jpg",
        "s3://pics/a/.",
        "s3://vault/secret",
        "s3://vault/open/2026",
        "s3://vault/open/20260/cat.jpg",
        "s3://vault/open//2026/cat.jpg",
        "s3://vault//open/2026/cat.jpg",
        "s3://vault/open/2026/../../secret",
        "s3://vault/open/2026/%2E%2E/2025/cat.jpg",
        "s3://vault/Open/2026/cat.jpg",
        "s3://vault/open%252F2026/cat.jpg",
        "s3://pics/cat.jpg?",
        "s3://pics/cat.jpg?acl",
        "s3://pics/cat.jpg?X-Amz-Signature=abc",
        "s3://pics/cat.jpg?versionId=",
        "s3://pics/cat.jpg?versionId=a&acl",
        "s3://pics/cat.jpg?versionId=a%26acl",
        "s3://pics/cat.jpg?versionId=a\r\nX: y",
        "s3://pics/cat.jpg?VersionId=a",
        "s3://pics/cat.jpg?versionId=" + "a" * 1025,
        "s3://pics/cat.jpg#versionId=a",
        "s3://pics/cat%zz.jpg",
        "s3://pics/cat%",
        "s3://pics/%ff%fe",
        "s3://pics/\ud800",
    ],
)
async def test_what_is_not_plainly_allowed_is_never_asked_for(uri: str) -> None:
    """Buckets match as they are, prefixes by whole segments; dots and queries lead nowhere."""
    async with _store(answer("200 OK", b"cat")) as (source, script):
        with pytest.raises(Failed) as caught:
            await fetched(source, uri, LIMIT)
    assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert script.requests == []


async def test_request_is_signed_plain_and_never_pays() -> None:
    """No cookie, no encoding, no requester-pays; the secret key is nowhere in it."""
    async with scripted(answer("200 OK", b"cat", set_cookie="a=b")) as script:
        # By name: no client keeps the cookies of a bare address.
        named = script.endpoint.replace("127.0.0.1", "localhost")
        async with s3_source(_settings(named)) as source:
            await fetched(source, "s3://pics/a", LIMIT)
            await fetched(source, "s3://pics/b", LIMIT)
    for request in script.requests:
        head = request.lower()
        assert b"authorization: aws4-hmac-sha256 credential=an-access-key/" in head
        assert b"accept-encoding: identity\r\n" in head
        assert b"cookie" not in head
        assert b"payer" not in head
        assert SECRET_KEY.encode() not in head


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>", Code.NOT_FOUND),
        ("404 Not Found", b"", Code.NOT_FOUND),
        ("404 Not Found", b"<Code>NoSuchBucket</Code>", Code.NOT_FOUND),
        ("410 Gone", b"", Code.NOT_FOUND),
        ("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>", Code.ACCESS_DENIED),
        ("401 Unauthorized", b"", Code.ACCESS_DENIED),
        ("403 Forbidden", b"<Code>SignatureDoesNotMatch</Code>", Code.IMAGE_UNAVAILABLE),
        ("403 Forbidden", b"<Code>InvalidAccessKeyId</Code>", Code.IMAGE_UNAVAILABLE),
        ("403 Forbidden", b"<Code>RequestTimeTooSkewed</Code>", Code.IMAGE_UNAVAILABLE),
        ("400 Bad Request", b"<Code>ExpiredToken</Code>", Code.IMAGE_UNAVAILABLE),
        ("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>", Code.IMAGE_UNAVAILABLE),
        ("500 Internal Server Error", b"", Code.IMAGE_UNAVAILABLE),
        ("429 Too Many Requests", b"", Code.IMAGE_UNAVAILABLE),
        ("407 Proxy Authentication Required", b"", Code.IMAGE_UNAVAILABLE),
        ("408 Request Timeout", b"", Code.IMAGE_UNAVAILABLE),
        ("425 Too Early", b"", Code.IMAGE_UNAVAILABLE),
        ("301 Moved Permanently", b"", Code.IMAGE_UNAVAILABLE),
        ("206 Partial Content", b"cat", Code.IMAGE_UNAVAILABLE),
        ("204 No Content", b"", Code.IMAGE_UNAVAILABLE),
    ],
)
async def test_answer_without_the_object_has_its_code(status: str, body: bytes, code: Code) -> None:
    """What may heal is tried again, our own credentials included; nothing else is."""
    verdict = await _verdict(answer(status, body))
    assert verdict.code is code
    assert isinstance(verdict, Unavailable) == code.retryable


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("", None), ("soon", None), ("-1", None), ("9" * 99, None)]
)
async def test_busy_store_says_when_to_come_again(header: str, seconds: float | None) -> None:
    """Retry-After in seconds is handed on; anything else there is no number."""
    verdict = await _verdict(answer("503 Slow Down", retry_after=header))
    assert isinstance(verdict, Unavailable)
    assert verdict.retry_after_seconds == seconds


async def test_errors_show_nothing_that_the_store_said() -> None:
    """Request ids, hosts, keys in an error's body or headers stay out of messages."""
    said = b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>an-access-key</AWSAccessKeyId></Error>"
    verdict = await _verdict(
        answer("403 Forbidden", said, x_amz_request_id="4442587FB7D0A2F9"),
        "s3://pics/cat.jpg?versionId=private",
    )
    assert verdict.message == (
        "s3://pics/cat.jpg...: the store answers 403; an object that is missing reads so to those "
        "who may not list it"
    )
    assert verdict.__cause__ is None


async def test_redirect_is_not_followed() -> None:
    """Wherever a store sends us, no second request is made."""
    async with scripted(answer("200 OK", b"evil")) as elsewhere:
        for status in (
            "301 Moved",
            "302 Found",
            "307 Temporary Redirect",
            "308 Permanent Redirect",
        ):
            verdict = await _verdict(answer(status, location=f"{elsewhere.endpoint}/pics/cat.jpg"))
            assert verdict.code is Code.IMAGE_UNAVAILABLE
            assert "S3_REGION" in verdict.message
        assert elsewhere.requests == []


async def test_limit_holds_to_the_byte() -> None:
    """As many bytes as allowed are read, one more is too large."""
    async with _store(answer("200 OK", b"x" * LIMIT)) as (source, _):
        assert len(await fetched(source, "s3://pics/a", LIMIT)) == LIMIT
    verdict = await _verdict(answer("200 OK", b"x" * (LIMIT + 1)))
    assert verdict.code is Code.IMAGE_TOO_LARGE


async def test_size_is_judged_before_anything_is_read_or_held() -> None:
    """A body that never comes is not waited for when its length alone is too much."""

    async def head_only(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n")
        await asyncio.sleep(60)

    full = ByteBudget(1)
    async with asyncio.timeout(10), _store(head_only) as (source, _), full.reserve(1):
        with pytest.raises(Failed) as caught:
            async with fetching(source, "s3://pics/a", LIMIT, full):
                pass
    assert caught.value.code is Code.IMAGE_TOO_LARGE


async def test_bytes_are_held_as_long_as_they_are_there() -> None:
    """From before the body is read to the end of the fetch, by the length that the store gives."""
    budget = ByteBudget(1000)
    async with _store(answer("200 OK", b"cat")) as (source, _):
        async with fetching(source, "s3://pics/a", LIMIT, budget):
            assert budget.held_bytes == 3
        assert budget.held_bytes == 0


async def test_endless_body_without_a_length_is_too_large() -> None:
    """Bytes are counted as they come, and one of unknown length holds all it may have."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10\r\n" + b"x" * 16 + b"\r\n")
            await writer.drain()

    assert (await _verdict(endless)).code is Code.IMAGE_TOO_LARGE


async def test_silence_is_given_up() -> None:
    """A store that takes the request and says nothing costs the idle time, no more."""

    async def silent(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    verdict = await _verdict(silent, FETCH_IDLE_SECONDS="0.05")
    assert verdict.code is Code.IMAGE_UNAVAILABLE
    assert "in time" in verdict.message


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n", b"HTTP/1.1 200"]
)
async def test_trickle_is_given_up(start: bytes) -> None:
    """Bytes that come one by one keep the idle clock quiet, and the total ends it all the same."""

    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    verdict = await _verdict(trickle, FETCH_TOTAL_SECONDS="0.2")
    assert verdict.code is Code.IMAGE_UNAVAILABLE
    assert "in time" in verdict.message


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 90\r\n\r\ncat",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\ncat",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 900\r\n\r\n<Code>",
    ],
)
async def test_answer_that_is_no_http_or_breaks_off_may_be_tried_again(reply: bytes) -> None:
    """Whatever comes over the line, a verdict follows and no other error."""
    verdict = await _verdict(reply)
    assert verdict.code is Code.IMAGE_UNAVAILABLE


async def test_object_is_taken_as_it_is_stored() -> None:
    """A store's word that a body is compressed unpacks nothing."""
    async with _store(answer("200 OK", b"\x1f\x8bnot gzip", content_encoding="gzip")) as (
        source,
        _,
    ):
        assert await fetched(source, "s3://pics/a", LIMIT) == b"\x1f\x8bnot gzip"


async def test_closed_port_may_be_tried_again() -> None:
    """A store that is away is no fault of the reference."""
    async with scripted(b"") as script:
        endpoint = script.endpoint
    async with s3_source(_settings(endpoint)) as source:
        with pytest.raises(Unavailable, match="no connection"):
            await fetched(source, "s3://pics/a", LIMIT)


class LostCredentials:
    """Credentials whose renewal fails."""

    def get_frozen_credentials(self) -> object:
        raise FileNotFoundError(2, "No such file", "/var/run/token")


async def test_credentials_that_cannot_be_renewed_may_be_tried_again() -> None:
    """A token file that is being replaced is no fault of the reference; its name stays here."""
    async with _store(answer("200 OK", b"cat")) as (source, script):
        lost = replace(source, credentials=LostCredentials())
        with pytest.raises(Unavailable, match="no credentials") as caught:
            await fetched(lost, "s3://pics/a", LIMIT)
    assert "token" not in caught.value.message
    assert script.requests == []


async def test_credentials_that_come_expired_may_be_tried_again() -> None:
    """botocore's own: renewed, and expired all the same, which it reports by a RuntimeError."""
    expired = {
        "access_key": "a",
        "secret_key": "b",
        "token": "c",
        "expiry_time": "2001-01-01T00:00:00Z",
    }
    credentials = RefreshableCredentials.create_from_metadata(
        metadata=expired, refresh_using=lambda: expired, method="test"
    )
    async with _store(answer("200 OK", b"cat")) as (source, script):
        with pytest.raises(Unavailable, match="no credentials"):
            await fetched(replace(source, credentials=credentials), "s3://pics/a", LIMIT)
    assert script.requests == []


async def test_fetch_that_is_given_up_closes_its_connection() -> None:
    """A cancelled record leaves nothing behind at the store."""
    asked, closed = asyncio.Event(), asyncio.Event()

    async def until_closed(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n")
        await writer.drain()
        asked.set()
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    budget = ByteBudget(1000)
    async with _store(until_closed, FETCH_TOTAL_SECONDS="50") as (source, _):
        fetch = fetching(source, "s3://pics/a", 10_000, budget)
        task = asyncio.create_task(fetch.__aenter__())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 10)
    assert budget.held_bytes == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"S3_BUCKETS": "/pics"},
        {"S3_BUCKETS": "pics/../vault"},
        {"S3_BUCKETS": "pics//a"},
        {"S3_BUCKETS": "pi?cs"},
        {"S3_BUCKETS": "*"},
        {"S3_BUCKETS": "s3://pics"},
        {"S3_ENDPOINT": "ftp://store"},
        {"S3_ENDPOINT": "http://user:password@store"},
        {"S3_ENDPOINT": "http://store?x=y"},
        {"S3_ENDPOINT": "store:9000"},
        {"S3_REGION": "evil.example/"},
        {"S3_ACCESS_KEY_ID": ""},
        {"S3_SECRET_ACCESS_KEY": ""},
    ],
)
async def test_bad_setting_stops_the_start(changes: dict[str, str]) -> None:
    """What is no bucket, endpoint or pair of keys is said at the start, without the secret."""
    with pytest.raises(FatalError) as caught:
        async with s3_source(_settings("http://127.0.0.1:1", **changes)):
            pass
    assert caught.value.code is ExitCode.SETTINGS
    assert SECRET_KEY not in str(caught.value)


def test_default_endpoint_is_awss_over_tls() -> None:
    """Plain HTTP is spoken only where the setting says so."""
    assert _settings("", S3_REGION="eu-west-1").s3_url == "https://s3.eu-west-1.amazonaws.com"
    assert _settings("https://store.example:9000/s3/").s3_url == "https://store.example:9000/s3"


def test_settings_show_no_secret_key() -> None:
    """Printed or logged as a whole, the settings keep it."""
    settings = _settings("https://store")
    assert SECRET_KEY not in repr(settings)
    assert SECRET_KEY not in str(settings)


async def test_version_that_deletes_is_not_found() -> None:
    """S3 says 405 of it, with a header that tells it from any other 405."""
    reply = answer("405 Method Not Allowed", x_amz_delete_marker="true")
    assert (await _verdict(reply)).code is Code.NOT_FOUND


async def test_request_that_the_store_calls_wrong_is_not_made_again() -> None:
    """It would be as wrong the second time; 404 and 410 alone say that there is no object."""
    for status, body in [
        ("405 Method Not Allowed", b""),
        ("400 Bad Request", b"<Code>KeyTooLongError</Code>"),
    ]:
        verdict = await _verdict(answer(status, body))
        assert verdict.code is Code.IMAGE_UNAVAILABLE
        assert not isinstance(verdict, Unavailable)


async def test_store_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    """HTTP_CA_FILE holds for S3_ENDPOINT too; without it the store proves nothing."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with scripted(answer("200 OK", b"cat"), tls) as script:
        given = {"HTTP_CA_FILE": str(tmp_path / "ca.pem")}
        async with s3_source(_settings(script.endpoint, **given)) as source:
            assert await fetched(source, "s3://pics/cat.jpg", LIMIT) == b"cat"
        async with s3_source(_settings(script.endpoint)) as source:
            with pytest.raises(Unavailable, match="certificate of the store is not valid"):
                await fetched(source, "s3://pics/cat.jpg", LIMIT)
