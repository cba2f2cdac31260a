"""The pictures of the database that are nearest to a vector of the same model."""

from psycopg import sql

from imagelane.exits import ExitCode, FatalError
from producer.database.connection import Connection, connected, translated
from producer.database.schema import Tables, check_there
from producer.database.settings import DatabaseSettings
from producer.database.vectors import Vector, register
from producer.nearest import Match
from schemas import Embedding


async def nearest_in_database(
    settings: DatabaseSettings, tables: Tables, embedding: Embedding, count: int
) -> list[Match]:
    """Return the `count` nearest pictures, the nearest first; exact without an index.

    Raises:
        FatalError: `FAILED`: all vectors are of other models; `DATABASE`: as `check_there`.
    """
    async with connected(settings) as connection:
        await check_there(connection, tables)
        await register(connection)
        with translated("searching"):
            found = await _nearest(connection, tables, embedding, count)
            if not found:
                await _check_models(connection, tables, embedding)
    return found


async def _nearest(
    connection: Connection, tables: Tables, embedding: Embedding, count: int
) -> list[Match]:
    # The expression of an HNSW index for this model, so that PostgreSQL uses one if there is one.
    query = sql.SQL(
        "SELECT 1 - (embedding::vector({dim}) <=> %(vector)s), id, uri, caption FROM {table}"
        " WHERE embedding_model = {model} AND embedding_revision = {revision}"
        " ORDER BY embedding::vector({dim}) <=> %(vector)s LIMIT %(count)s"
    ).format(
        table=tables.results,
        dim=sql.Literal(embedding.dim),
        model=sql.Literal(embedding.model),
        revision=sql.Literal(embedding.revision),
    )
    values = {"vector": Vector(embedding.vector()), "count": count}
    rows = await (await connection.execute(query, values)).fetchall()
    return [Match(score, id, uri or "", caption or "") for score, id, uri, caption in rows]


async def _check_models(connection: Connection, tables: Tables, embedding: Embedding) -> None:
    query = sql.SQL(
        "SELECT embedding_model, embedding_revision, count(*) FROM {}"
        " WHERE embedding IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC"
    ).format(tables.results)
    rows = await (await connection.execute(query)).fetchall()
    if rows:
        there = ", ".join(f"{model} at {revision} ({count})" for model, revision, count in rows)
        raise FatalError(
            ExitCode.FAILED,
            f"{tables.name} has vectors of {there}, the consumer has {embedding.model} at "
            f"{embedding.revision}; they cannot be compared: `imagelane reembed`",
        )
