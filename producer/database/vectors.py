"""pgvector's type in its binary form on the wire: no text, no rounding."""

import struct
import sys
from array import array
from collections.abc import Sequence

from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from imagelane.exits import ExitCode, FatalError
from producer.database.connection import Connection, translated


class Vector:
    """A vector as pgvector receives it: two int16 (length, 0), then float32, big-endian."""

    __slots__ = ("binary",)

    def __init__(self, numbers: Sequence[float]) -> None:
        floats = array("f", numbers)
        if sys.byteorder == "little":
            floats.byteswap()
        self.binary = struct.pack(">hh", len(numbers), 0) + floats.tobytes()


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vector) -> bytes:
        return obj.binary


async def register(connection: Connection) -> None:
    """Register `Vector` for a connection: the type's number differs from database to database.

    Raises:
        FatalError: `DATABASE`: pgvector's schema is not on the search path.
    """
    with translated("looking for pgvector"):
        type_ = await TypeInfo.fetch(connection, "vector")
    if type_ is None:
        raise FatalError(
            ExitCode.DATABASE, "database: pgvector's schema is not on the user's search_path"
        )
    dumper = type("_Dumper", (_VectorDumper,), {"oid": type_.oid})
    connection.adapters.register_dumper(Vector, dumper)
