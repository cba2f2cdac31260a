"""`s3:` references: objects of allowed buckets, at the one endpoint of the settings.

botocore, the library of AWS's own tools, finds the credentials and signs. The request is one plain
GET: no redirect, no proxy or endpoint of the environment, no retry.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, Self
from urllib.parse import quote, unquote

from aiohttp import ClientResponse, ClientSession
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.exceptions import ClientError as CredentialsRefused
from botocore.session import Session
from yarl import URL

from consumer.errors import Failed
from consumer.images.sources import Room, forbidden, unavailable
from consumer.images.sources.body import Body
from consumer.images.sources.options import FetchLimits, S3Options
from consumer.images.sources.responses import error_of_response, verdicts
from consumer.images.sources.sessions import open_trusted_session
from imagelane.exits import ExitCode, FatalError
from imagelane.files import BROKEN_PERCENT
from imagelane.uris import display
from schemas import Code

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_VERSION: Final = re.compile(r"versionId=[A-Za-z0-9._~-]{1,1024}")
_ERROR_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_ERROR_BYTES: Final = 4096
# Errors of botocore where it has no credentials: a refusal, an answer or a file that it cannot
# read, and RuntimeError where renewed ones have expired.
_NO_CREDENTIALS: Final = (
    BotoCoreError,
    CredentialsRefused,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
)
# Our own credentials, clock or region are at fault: the reference may be a good one.
_OUR_FAULT: Final = {
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "XAdminUserNotFound",  # Versity's word for InvalidAccessKeyId
}


class CredentialSource(Protocol):
    """Credentials that renew themselves, which may block."""

    def get_frozen_credentials(self) -> object:
        """Return the current credentials, as botocore signs with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """A bucket, and the path segments that a key must begin with; none: every key."""

    bucket: str
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `bucket` or `bucket/prefix/`.

        Raises:
            FatalError: it is neither.
        """
        bucket, _, prefix = text.partition("/")
        segments = tuple(prefix.removesuffix("/").split("/")) if prefix else ()
        if not _BUCKET.fullmatch(bucket) or not {"", ".", ".."}.isdisjoint(segments):
            raise FatalError(
                ExitCode.SETTINGS, f"S3_BUCKETS: {text}: give bucket or bucket/prefix/"
            )
        return cls(bucket=bucket, segments=segments)

    def has(self, bucket: str, segments: tuple[str, ...]) -> bool:
        """Whether the key of `segments` is below the prefix."""
        count = len(self.segments)
        return bucket == self.bucket and len(segments) > count and segments[:count] == self.segments


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Source:
    """Reads objects of any S3 store behind `endpoint`, path-style, by one session."""

    allowed: tuple[Allowed, ...]
    endpoint: str
    region: str
    credentials: CredentialSource
    session: ClientSession
    limits: FetchLimits

    async def fetch(self, uri: str, max_bytes: int, room: Room) -> bytes:
        """Return the content of the object.

        Raises:
            Failed: `forbidden_source` (not a plain s3 URI, not an allowed bucket and prefix),
                `not_found`, `access_denied`, `image_too_large`.
            Unavailable: the store does not answer, is busy, redirects, or refuses our credentials.
        """
        url = self._url(uri)
        try:
            # In a thread: botocore renews credentials over the network.
            headers = await asyncio.to_thread(self._signed_headers, url)
        except _NO_CREDENTIALS as exc:
            raise unavailable(uri, "no credentials can be had for the store") from exc
        body = Body(uri=uri, max_bytes=max_bytes, room=room, limits=self.limits)
        async with (
            verdicts(uri, "the store"),
            asyncio.timeout(self.limits.total_seconds) as clock,
            self.session.get(
                URL(url, encoded=True), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status != 200:
                raise await _store_error(uri, response)
            return await body.read(response, clock)

    def _url(self, uri: str) -> str:
        """Return the address of an allowed object. No IO."""
        path, question, query = uri.partition(":")[2].partition("?")
        bucket, _, encoded_key = path.removeprefix("//").partition("/")
        if not path.startswith("//") or "#" in uri or BROKEN_PERCENT.search(encoded_key):
            raise forbidden(uri, "give s3://bucket/key, with ?, # and % percent-encoded")
        if question and not _VERSION.fullmatch(query):
            raise forbidden(uri, "only versionId may be in its query")
        try:
            key = unquote(encoded_key, errors="strict")
            encoded_key = quote(key, safe="/")
        except UnicodeError as exc:
            raise forbidden(uri, "not valid Unicode") from exc
        segments = tuple(key.split("/"))
        # A key may hold any text, but a proxy before the store may resolve these.
        if not {".", ".."}.isdisjoint(segments):
            raise forbidden(uri, "neither . nor .. may be in its path")
        if not key or not any(allowed.has(bucket, segments) for allowed in self.allowed):
            raise forbidden(uri, "not below an allowed bucket and prefix (S3_BUCKETS)")
        return f"{self.endpoint}/{bucket}/{encoded_key}{question}{query}"

    def _signed_headers(self, url: str) -> list[tuple[str, str]]:
        request = AWSRequest(method="GET", url=url)
        frozen = self.credentials.get_frozen_credentials()
        S3SigV4Auth(frozen, "s3", self.region).add_auth(request)
        return list(request.headers.items())


@asynccontextmanager
async def open_s3(options: S3Options, limits: FetchLimits) -> AsyncIterator[S3Source]:
    """Open a source for the buckets of the options.

    Raises:
        FatalError: a bucket is not one, there are no credentials, or HTTP_CA_FILE cannot be read.
    """
    allowed = tuple(map(Allowed.parse, options.buckets))
    credentials = await asyncio.to_thread(_credentials, options)
    async with open_trusted_session(limits, options.ca_file) as session:
        yield S3Source(
            allowed=allowed,
            endpoint=options.endpoint,
            region=options.region,
            credentials=credentials,
            session=session,
            limits=limits,
        )


def _credentials(options: S3Options) -> CredentialSource:
    """Return the options' credentials, or botocore's: environment, files, instance role."""
    if options.access_key_id and options.secret_access_key:
        given: CredentialSource = Credentials(options.access_key_id, options.secret_access_key)
        return given
    try:
        found: CredentialSource | None = Session().get_credentials()
    except _NO_CREDENTIALS as exc:
        raise FatalError(
            ExitCode.SETTINGS, f"S3_BUCKETS: {type(exc).__name__} instead of credentials"
        ) from exc
    if found is None:
        raise FatalError(
            ExitCode.SETTINGS,
            "S3_BUCKETS: no credentials; set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or run "
            "where botocore finds some (a role, AWS_ACCESS_KEY_ID)",
        )
    return found


async def _store_error(uri: str, response: ClientResponse) -> Failed:
    """Return the error of an answer without the object. No message shows its body."""
    try:
        body = await response.content.readexactly(_ERROR_BYTES)
    except asyncio.IncompleteReadError as whole:
        body = whole.partial
    found = _ERROR_CODE.search(body)
    if found and (reason := found[1].decode()) in _OUR_FAULT:
        return unavailable(uri, f"the store does not accept our credentials ({reason})")
    status = response.status
    if status < 400:
        return unavailable(uri, f"the store answers {status}: S3_ENDPOINT or S3_REGION is another")
    if response.headers.get("x-amz-delete-marker") == "true":  # 405 where its version is asked for
        return Failed(Code.NOT_FOUND, f"{display(uri)}: the object is deleted")
    refused = error_of_response(uri, response, time.time(), "the store")
    if refused.code is Code.ACCESS_DENIED:
        return Failed(
            refused.code,
            f"{refused.message}; an object that is missing reads so to those who may not list it",
        )
    return refused
