"""The connection to PostgreSQL. No error shows the address, for it may hold a password."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from psycopg import AsyncConnection, Error
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from imagelane.exits import ExitCode, FatalError
from producer.database.settings import DatabaseSettings

Connection = AsyncConnection[tuple[Any, ...]]

# We notice a dead server within some 30 s.
_KEEPALIVE: Final = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


@asynccontextmanager
async def connected(settings: DatabaseSettings) -> AsyncIterator[Connection]:
    """Open a connection that commits each statement outside of `transaction()`.

    Raises:
        FatalError: `SETTINGS`: `DATABASE_URL` is no address; `DATABASE`: no server answers there,
            it refuses us, or its encoding is not UTF-8.
    """
    defaults: dict[str, Any] = {
        "connect_timeout": max(2, int(settings.broker_timeout_seconds)),
        "application_name": "imagelane",
        **_KEEPALIVE,
    }
    try:
        given = conninfo_to_dict(settings.database_url.get_secret_value())
        address = make_conninfo("", **(defaults | given))
    except Error:
        raise FatalError(
            ExitCode.SETTINGS,
            "settings: DATABASE_URL: not of the form postgresql://user@host:port/database",
        ) from None  # the cause quotes the address
    with translated("connecting"):
        connection = await AsyncConnection.connect(address, autocommit=True)
    async with connection:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise FatalError(
                ExitCode.DATABASE,
                f"database: its encoding is {encoding}; captions need one of UTF8",
            )
        yield connection


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translate psycopg's errors into a `FatalError` (`DATABASE`)."""
    try:
        yield
    except Error as exc:
        state = f" ({exc.sqlstate})" if exc.sqlstate else ""
        reason = " ".join(str(exc).split())
        raise FatalError(ExitCode.DATABASE, f"database: {doing}: {reason}{state}") from exc
