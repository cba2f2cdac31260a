"""The row of a result."""

from typing import Any, Final

from producer.database.vectors import Vector
from producer.results import ReadResult
from schemas import Result

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

    An embedding without the numbers that it promises leaves its three columns empty.
    """
    result = one.result
    image, caption, error = result.image, result.caption, result.error
    return (
        result.id,
        result.status,
        _text(image.uri) if image else None,
        image.sha256 if image else None,
        image.width if image else None,
        image.height if image else None,
        _text(image.format) if image else None,
        _text(caption.text) if caption else None,
        _text(caption.model) if caption else None,
        _text(caption.revision) if caption else None,
        *_embedding(result),
        _text(error.code) if error else None,
        _text(error.message) if error else None,
        result.metadata.as_sent.decode() if result.metadata is not None else None,
        one.key,
        one.signed_at,
        one.partition,
        one.offset,
    )


def _embedding(result: Result) -> tuple[Vector | None, str | None, str | None]:
    embedding = result.embedding
    if embedding is None:
        return None, None, None
    try:
        vector = Vector(embedding.vector())
    except ValueError:
        return None, None, None
    return vector, _text(embedding.model), _text(embedding.revision)


def _text(text: str | None) -> str | None:
    """PostgreSQL takes every character but one."""
    return text.replace("\0", "\ufffd") if text else text
