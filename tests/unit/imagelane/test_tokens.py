"""OAuth tokens: kept while they live, renewed before they end, and why there is none."""

from collections.abc import Iterator

import pytest

from imagelane.exits import FatalError
from imagelane.kafka.security import KafkaSecurity, Mechanism, Protocol, TokenEndpoint
from imagelane.kafka.tokens import ClientCredentials, TokenUnavailable, open_provider
from tests.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer.running() as server:
        yield server


def endpoint(server: TokenServer, secret: str = CLIENT_SECRET) -> TokenEndpoint:
    return TokenEndpoint(url=server.url, client_id=CLIENT_ID, client_secret=secret)


async def test_token_is_kept_for_four_fifths_of_its_life(server: TokenServer) -> None:
    """Each connection takes the same one; the next is asked for before the first one ends."""
    now = 0.0
    provider = ClientCredentials(endpoint(server), clock=lambda: now)
    first = await provider.token()
    now = 0.79 * server.life_seconds
    assert await provider.token() == first
    assert server.issued == 1
    now = 0.81 * server.life_seconds
    await provider.token()
    assert server.issued == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, b""), "answered 500"),
        ((302, b""), "answered 302"),
        ((200, b"{}"), "without an access_token"),
        ((200, b"[]"), "without an access_token"),
        ((200, b"no JSON"), "gave no token"),
        ((200, b"[" * 100_000), "gave no token"),
    ],
)
async def test_answer_without_a_token_is_named(
    server: TokenServer, answer: tuple[int, bytes], reason: str
) -> None:
    """The line says which endpoint, what it answered, and never the secret."""
    server.answer = answer
    with pytest.raises(TokenUnavailable, match=reason) as caught:
        await ClientCredentials(endpoint(server)).token()
    assert server.url in str(caught.value)
    assert CLIENT_SECRET not in str(caught.value)


async def test_wrong_client_secret_is_named(server: TokenServer) -> None:
    """It points to the two settings."""
    with pytest.raises(TokenUnavailable, match="401; are KAFKA_OAUTH_CLIENT_ID"):
        await ClientCredentials(endpoint(server, secret="wrong")).token()


def token_of_a_function() -> str:
    return "plain"


async def token_of_a_coroutine() -> str:
    return "async"


def no_token() -> str:
    raise OSError("no role")


@pytest.mark.parametrize(
    ("function", "token"), [("token_of_a_function", "plain"), ("token_of_a_coroutine", "async")]
)
async def test_token_comes_from_a_function_of_the_settings(function: str, token: str) -> None:
    """A plain one runs in a thread, an async one is awaited."""
    assert await open_provider(_by(function)).token() == token


async def test_function_that_fails_is_named() -> None:
    """Whatever it raises, the login fails with its reason."""
    with pytest.raises(TokenUnavailable, match="no role"):
        await open_provider(_by("no_token")).token()


def test_function_that_is_not_there_is_a_bad_setting() -> None:
    """Before anything connects."""
    with pytest.raises(FatalError, match="KAFKA_TOKEN_PROVIDER"):
        open_provider(_by("nothing"))


def test_no_secret_is_in_a_repr() -> None:
    """Log lines and tracebacks show values."""
    security = KafkaSecurity(
        protocol=Protocol.SASL_SSL,
        mechanism=Mechanism.OAUTHBEARER,
        password="secret-1",
        key_password="secret-2",
        token_endpoint=TokenEndpoint(url="u", client_id="i", client_secret="secret-3"),
    )
    assert "secret-" not in repr(security)


def _by(function: str) -> KafkaSecurity:
    return KafkaSecurity(
        protocol=Protocol.SASL_SSL,
        mechanism=Mechanism.OAUTHBEARER,
        token_provider=f"{__name__}:{function}",
    )
