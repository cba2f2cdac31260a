"""Images with another model's embedding, by the database."""

from collections.abc import AsyncGenerator
from typing import Final

from psycopg import sql

from producer.database.connection import connected, translated
from producer.database.schema import Tables, check_there
from producer.database.settings import DatabaseSettings
from producer.outdated import ModelName, Outdated
from schemas import JsonObject

_ROWS_AT_ONCE: Final = 1000


async def outdated_in_database(
    settings: DatabaseSettings, tables: Tables, wanted: ModelName
) -> AsyncGenerator[Outdated, None]:
    """Yield the images whose embedding is of another model, from one snapshot, oldest first."""
    query = sql.SQL(
        "SELECT id, uri, embedding_model, embedding_revision, caption IS NOT NULL, metadata::text,"
        " extract(epoch FROM signed_at)::bigint, key FROM {} WHERE status = 'ok' AND uri IS NOT"
        " NULL AND embedding IS NOT NULL AND NOT (embedding_model = %(model)s AND"
        " (%(revision)s::text IS NULL OR embedding_revision = %(revision)s)) ORDER BY signed_at, id"
    ).format(tables.results)
    values = {"model": wanted.model, "revision": wanted.revision}
    async with connected(settings) as connection:
        await check_there(connection, tables)
        with translated("looking for what another model made"):
            async with connection.transaction(), connection.cursor("older") as cursor:
                cursor.itersize = _ROWS_AT_ONCE
                await cursor.execute(query, values)
                async for id, uri, model, revision, captioned, metadata, at, key in cursor:
                    yield Outdated(
                        id=id,
                        uri=uri,
                        model=model,
                        revision=revision,
                        has_caption=captioned,
                        metadata=None if metadata is None else JsonObject(metadata.encode()),
                        signed_at=at,
                        key=key,
                    )
