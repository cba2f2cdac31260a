"""Errors by the answer of a host: a status without an image, or no answer."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientResponseError,
)
from aiohttp.http_exceptions import LineTooLong

from consumer.errors import Failed
from consumer.images.sources import unavailable
from consumer.images.sources.sessions import MAX_HEADER_BYTES
from imagelane.uris import display
from schemas import Code

# 407 comes from the egress proxy: we can mend that.
_BUSY: Final = {407, 408, 425, 429}
# Any other 4xx calls the request itself wrong: `image_unavailable`, not tried again.
_CODES: Final = {
    401: Code.ACCESS_DENIED,
    403: Code.ACCESS_DENIED,
    404: Code.NOT_FOUND,
    410: Code.NOT_FOUND,
}


def error_of_response(uri: str, response: ClientResponse, now: float, host: str) -> Failed:
    """Return the error of an answer other than 200. Its body is not read."""
    status = response.status
    # 2xx and 3xx without an image may have one later.
    if status in _BUSY or not 400 <= status < 500:
        retry_after = response.headers.get("Retry-After", "")
        return unavailable(uri, f"{host} answers {status}", retry_after_seconds(retry_after, now))
    return Failed(
        _CODES.get(status, Code.IMAGE_UNAVAILABLE), f"{display(uri)}: {host} answers {status}"
    )


def retry_after_seconds(text: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3); None if it is malformed."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None


@asynccontextmanager
async def verdicts(uri: str, host: str) -> AsyncIterator[None]:
    """Translate errors of aiohttp. Their own words hold the URL and addresses, and are dropped."""
    try:
        yield
    except ClientConnectorCertificateError as exc:
        raise unavailable(uri, f"the certificate of {host} is not valid") from exc
    except TimeoutError as exc:
        raise unavailable(uri, f"{host} does not answer in time") from exc
    except ClientConnectorDNSError as exc:
        raise unavailable(uri, f"{host} has no address") from exc
    except ClientConnectorError as exc:
        raise unavailable(uri, f"no connection to {host}") from exc
    except ClientResponseError as exc:  # the answer is not HTTP
        if not _has_long_header(exc):
            raise unavailable(uri, f"the connection to {host} broke") from exc
        raise Failed(
            Code.IMAGE_UNAVAILABLE,
            f"{display(uri)}: {host} sends a header of over {MAX_HEADER_BYTES} bytes",
        ) from exc
    except (ClientError, OSError) as exc:
        raise unavailable(uri, f"the connection to {host} broke") from exc


def _has_long_header(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, LineTooLong):
        error = error.__cause__
    return error is not None
