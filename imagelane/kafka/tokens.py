"""Tokens for OAUTHBEARER: from an OAuth endpoint, or from a function that a setting names."""

import asyncio
import inspect
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import orjson
from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import OAuthAuthenticator
from aiokafka.errors import AuthenticationFailedError, SaslAuthenticationFailed

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.security import KafkaSecurity, TokenEndpoint

ANSWER_SECONDS: Final = 10
MAX_ANSWER_BYTES: Final = 64 * 1024
RENEW_SHARE: Final = 0.8  # of a token's life; the rest remains for a connection that opens late
_LONGEST_REASON: Final = 200
_DEFAULT_LIFE_SECONDS: Final = 300  # if the endpoint names none (RFC 6749: it should)


class TokenUnavailable(AuthenticationFailedError):  # type: ignore[misc]  # aiokafka has no types
    """There is no token; the message says why, and holds no secret."""


def open_provider(security: KafkaSecurity) -> AbstractTokenProvider:
    """Return the token provider of the settings.

    Raises:
        FatalError: `SETTINGS`: KAFKA_TOKEN_PROVIDER names no function.
    """
    conn.OAuthAuthenticator = _CheckedAuthenticator
    if security.token_provider:
        return _FunctionProvider(security.token_provider)
    assert security.token_endpoint, "the settings demand one of the two"
    return ClientCredentials(security.token_endpoint)


class _CheckedAuthenticator(OAuthAuthenticator):  # type: ignore[misc]
    """Checks the broker's answer to a token; aiokafka 0.14 takes any answer for success.

    A refusal is a challenge with an error in JSON (RFC 7628, section 3.2.2); success is empty.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if self._token_sent and payload:
            reason = payload[:_LONGEST_REASON].decode(errors="replace")
            raise SaslAuthenticationFailed(reason)
        step: tuple[bytes, bool] | None = await super().step(payload)
        return step


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens of an OAuth endpoint, each kept for four fifths of its life."""

    def __init__(
        self, endpoint: TokenEndpoint, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._token = ""
        self._renew_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def token(self) -> str:
        """Return a token that is valid for a while.

        Raises:
            TokenUnavailable: the endpoint does not answer, or answers without a token.
        """
        async with self._one_at_a_time:
            if self._clock() >= self._renew_at:
                asked_at = self._clock()
                self._token, life_seconds = await asyncio.to_thread(_ask, self._endpoint)
                self._renew_at = asked_at + RENEW_SHARE * life_seconds
            return self._token


class _FunctionProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens of a function, plain or async; each call returns a valid one."""

    def __init__(self, name: str) -> None:
        module, _, function = name.partition(":")
        try:
            self._function = getattr(import_module(module), function)
        except (ImportError, AttributeError) as exc:
            raise FatalError(
                ExitCode.SETTINGS, f"settings: KAFKA_TOKEN_PROVIDER: {name}: {exc}"
            ) from exc

    async def token(self) -> str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if inspect.iscoroutinefunction(self._function):
                    return str(await self._function())
                return str(await asyncio.to_thread(self._function))
        except Exception as exc:  # the user's function may raise anything
            raise TokenUnavailable(f"KAFKA_TOKEN_PROVIDER gave no token: {exc!r}") from exc


def _ask(endpoint: TokenEndpoint) -> tuple[str, float]:
    """Return a token and its life in seconds. Blocks, for a bounded time."""
    form = {"grant_type": "client_credentials"}
    if endpoint.scope:
        form["scope"] = endpoint.scope
    # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
    pair = f"{_quoted(endpoint.client_id)}:{_quoted(endpoint.client_secret)}"
    request = urllib.request.Request(  # noqa: S310 - the settings allow https:, and http: of loopback
        endpoint.url,
        data=urllib.parse.urlencode(form).encode(),
        headers={
            "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
            "Accept": "application/json",
        },
    )
    try:
        with _opener.open(request, timeout=ANSWER_SECONDS) as response:
            answer = orjson.loads(response.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as exc:
        exc.close()
        hint = "; are KAFKA_OAUTH_CLIENT_ID and its secret right?" if exc.code in (400, 401) else ""
        raise TokenUnavailable(f"{endpoint.url} answered {exc.code}{hint}") from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise TokenUnavailable(f"{endpoint.url} gave no token: {reason}") from exc
    return _token_of(answer, endpoint.url)


def _token_of(answer: Any, url: str) -> tuple[str, float]:
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token:
        raise TokenUnavailable(f"{url} answered without an access_token")
    life = answer.get("expires_in")
    seconds = life if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE_SECONDS
    return token, float(seconds)


def _quoted(text: str) -> str:
    return urllib.parse.quote_plus(text)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the client secret is for the endpoint of the settings alone."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener: Final = urllib.request.build_opener(_NoRedirect)
