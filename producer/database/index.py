"""Results into the database: the rows and the read position in one transaction.

A kill at any moment leaves rows and positions of the same batches, so the next run goes on where
the rows end. The later of two results of an id counts, whichever comes first.
"""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Final, Self

from psycopg import sql

from imagelane.exits import ExitCode, FatalError
from producer.database.connection import Connection, connected, translated
from producer.database.rows import COLUMNS, row_of
from producer.database.schema import Tables, create_missing
from producer.database.settings import DatabaseSettings
from producer.database.vectors import register
from producer.results import ReadResult

_RANK: Final = ("signed_at", "result_partition", "result_offset")


class DatabaseIndex:
    """The table of results, and its positions in the results topic.

    `async with` opens it, and creates missing tables.

    Raises:
        FatalError: `DATABASE`: the database is away or refuses, or the table is of another topic.
    """

    def __init__(self, settings: DatabaseSettings, tables: Tables) -> None:
        self.positions: dict[int, int] = {}
        self._settings, self._tables, self._topic = settings, tables, settings.results_topic
        self._upsert = _upsert(tables)
        self._stack = AsyncExitStack()
        self._connection: Connection

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._connection = await stack.enter_async_context(connected(self._settings))
            with translated("creating the tables"):
                await create_missing(self._connection, self._tables)
            await register(self._connection)
            with translated("reading the places"):
                await self._read_places()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def write(self, results: Iterable[ReadResult], positions: Mapping[int, int]) -> None:
        """Write the rows and the new positions, or nothing of both.

        Raises:
            FatalError: `DATABASE`: it refuses or is away; `FAILED`: another run moved the place.
        """
        if positions == self.positions:
            return
        latest: dict[str, ReadResult] = {}
        for one in results:
            held = latest.get(one.id)
            if held is None or held.rank < one.rank:
                latest[one.id] = one
        with translated("writing"):
            async with self._connection.transaction():
                for partition, offset in positions.items():
                    if offset != self.positions.get(partition):
                        await self._move(partition, offset)
                async with self._connection.cursor() as cursor:
                    # In the order of ids, so that two runs cannot deadlock.
                    ordered = sorted(latest.values(), key=lambda one: one.id)
                    await cursor.executemany(self._upsert, list(map(row_of, ordered)))
        self.positions = dict(positions)

    async def _move(self, partition: int, offset: int) -> None:
        """Move a position from our last one; a run that another one overtook writes nothing."""
        before = self.positions.get(partition)
        if before is None:
            query = sql.SQL("INSERT INTO {} VALUES (%s, %s, %s) ON CONFLICT DO NOTHING")
            values: tuple[object, ...] = (self._topic, partition, offset)
        else:
            query = sql.SQL(
                "UPDATE {} SET next_offset = %s"
                " WHERE topic = %s AND partition = %s AND next_offset = %s"
            )
            values = (offset, self._topic, partition, before)
        done = await self._connection.execute(query.format(self._tables.places), values)
        if done.rowcount != 1:
            raise FatalError(
                ExitCode.FAILED,
                f"database: another `index` moved its place in {self._topic}[{partition}]; one is "
                "enough: end the other, or start again",
            )

    async def _read_places(self) -> None:
        query = sql.SQL("SELECT topic, partition, next_offset FROM {}").format(self._tables.places)
        for topic, partition, next_offset in await (
            await self._connection.execute(query)
        ).fetchall():
            if topic != self._topic:
                raise FatalError(
                    ExitCode.FAILED,
                    f"database: {self._tables.name} holds results of {topic}; take another --table",
                )
            self.positions[partition] = next_offset


def _upsert(tables: Tables) -> sql.Composed:
    columns = [sql.Identifier(name) for name in COLUMNS]
    return sql.SQL(
        "INSERT INTO {table} AS held ({columns}) VALUES ({values}) ON CONFLICT (id) DO UPDATE"
        " SET ({columns}) = ROW ({new}) WHERE ({held_rank}) < ({new_rank})"
    ).format(
        table=tables.results,
        columns=sql.SQL(", ").join(columns),
        # A signature's time may be after the year 9999, the end of Python's datetime.
        values=sql.SQL(", ").join(
            sql.SQL("to_timestamp(%s)" if name == "signed_at" else "%s") for name in COLUMNS
        ),
        new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in COLUMNS),
        held_rank=sql.SQL(", ").join(sql.Identifier("held", name) for name in _RANK),
        new_rank=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in _RANK),
    )
