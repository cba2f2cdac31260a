"""The two tables: one row per picture, and the read position in the results topic.

The column of vectors has no length, so it takes vectors of several models. Each row names its
vector's model, and no query compares across models.
"""

from typing import Final, LiteralString

from psycopg import errors, sql

from imagelane.exits import ExitCode, FatalError
from producer.database.connection import Connection, translated

EXTENSION: Final = "CREATE EXTENSION IF NOT EXISTS vector"

_RESULTS: Final[LiteralString] = """\
CREATE TABLE IF NOT EXISTS {} (
  id text PRIMARY KEY,
  status text NOT NULL,
  uri text,
  sha256 text,
  width integer,
  height integer,
  format text,
  caption text,
  caption_model text,
  caption_revision text,
  embedding vector,
  embedding_model text,
  embedding_revision text,
  error_code text,
  error_message text,
  metadata json,
  key bytea,
  signed_at timestamptz NOT NULL,
  result_partition integer NOT NULL,
  result_offset bigint NOT NULL
)"""
_PLACES: Final[LiteralString] = """\
CREATE TABLE IF NOT EXISTS {} (
  topic text,
  partition integer,
  next_offset bigint NOT NULL,
  PRIMARY KEY (topic, partition)
)"""


class Tables:
    """The tables by name: `{name}` has the rows, `{name}_places` the positions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.results = sql.Identifier(*name.split("."))
        self.places = sql.Identifier(*f"{name}_places".split("."))

    def statements(self) -> list[sql.Composed]:
        """Return the statements that create them."""
        return [sql.SQL(_RESULTS).format(self.results), sql.SQL(_PLACES).format(self.places)]

    def script(self) -> str:
        """Return the SQL that creates extension and tables, for a person to run."""
        parts = [EXTENSION, *(statement.as_string() for statement in self.statements())]
        return ";\n".join(parts) + ";"


async def create_missing(connection: Connection, tables: Tables) -> None:
    """Create the missing ones of extension and tables.

    Raises:
        FatalError: `DATABASE`: the server has no pgvector, or our user lacks the right; with the
            SQL for somebody who has it.
    """
    try:
        # A look first: a user without the right to create needs none if all exists.
        if not await _has_extension(connection):
            await connection.execute(EXTENSION)
        for name, statement in zip(
            (tables.results, tables.places), tables.statements(), strict=True
        ):
            if not await _exists(connection, name):
                await connection.execute(statement)
    except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as exc:
        raise FatalError(
            ExitCode.DATABASE,
            f"database: {exc.diag.message_primary}; let somebody who may run this, and give our "
            f"user SELECT, INSERT and UPDATE on both tables:\n{tables.script()}",
        ) from exc
    except (errors.FeatureNotSupported, errors.UndefinedFile) as exc:
        raise FatalError(
            ExitCode.DATABASE, "database: this server has no pgvector; install it there first"
        ) from exc


async def check_there(connection: Connection, tables: Tables) -> None:
    """Raise `FatalError` (`DATABASE`) without a table of results."""
    with translated("looking for the table"):
        is_there = await _has_extension(connection) and await _exists(connection, tables.results)
    if not is_there:
        raise FatalError(
            ExitCode.DATABASE, f"database: no table {tables.name}; `imagelane index` fills it"
        )


async def _has_extension(connection: Connection) -> bool:
    found = await connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
    return await found.fetchone() is not None


async def _exists(connection: Connection, table: sql.Identifier) -> bool:
    found = await connection.execute("SELECT to_regclass(%s)", (table.as_string(),))
    return await found.fetchone() != (None,)
