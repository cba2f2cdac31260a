"""The columns of a result, by the same names in Parquet and in PostgreSQL."""

from typing import Any

from schemas import Embedding, Result


def columns_of(result: Result) -> dict[str, Any]:
    """Return the values by column, without the embedding's; None for an absent one."""
    image, caption, error = result.image, result.caption, result.error
    return {
        "id": result.id,
        "status": result.status,
        "uri": image.uri if image else None,
        "sha256": image.sha256 if image else None,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "format": image.format if image else None,
        "caption": caption.text if caption else None,
        "caption_model": caption.model if caption else None,
        "caption_revision": caption.revision if caption else None,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
        "metadata": result.metadata.as_sent.decode() if result.metadata is not None else None,
    }


def embedding_columns(embedding: Embedding | None) -> dict[str, Any]:
    """Return the values of the embedding's columns.

    Raises:
        ValueError: its data do not hold the numbers that it names.
    """
    return {
        "embedding": embedding.vector() if embedding else None,
        "embedding_model": embedding.model if embedding else None,
        "embedding_revision": embedding.revision if embedding else None,
    }
