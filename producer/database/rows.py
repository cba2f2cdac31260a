"""The row of a result."""

from typing import Any, Final

from producer.columns import columns_of, embedding_columns
from producer.database.vectors import Vector
from producer.results import ReadResult
from schemas import Embedding

COLUMNS: Final = (
    "id",
    "status",
    "uri",
    "sha256",
    "width",
    "height",
    "format",
    "caption",
    "caption_model",
    "caption_revision",
    "embedding",
    "embedding_model",
    "embedding_revision",
    "error_code",
    "error_message",
    "metadata",
    "key",
    "signed_at",
    "result_partition",
    "result_offset",
)


def row_of(one: ReadResult) -> tuple[Any, ...]:
    """Return the values of `COLUMNS`, `signed_at` in Unix seconds.

    An embedding without the numbers that it names leaves its three columns empty.
    """
    values = {
        **columns_of(one.result),
        **_embedding(one.result.embedding),
        "key": one.key,
        "signed_at": one.signed_at,
        "result_partition": one.partition,
        "result_offset": one.offset,
    }
    return tuple(_storable(values[name]) for name in COLUMNS)


def _embedding(embedding: Embedding | None) -> dict[str, Any]:
    try:
        columns = embedding_columns(embedding)
    except ValueError:
        return embedding_columns(None)
    vector = columns["embedding"]
    return {**columns, "embedding": None if vector is None else Vector(vector)}


def _storable(value: Any) -> Any:
    # A text of PostgreSQL takes every character but NUL.
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
