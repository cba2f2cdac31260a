"""Images with another model's embedding, and the requests for new ones.

A request keeps its id, so the new result replaces the old one in every store by id. It keeps its
key, so the partition that remembers the id gets it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from producer.export import Spool
from producer.requests import Keyed
from producer.results import Status
from schemas import ImageReference, JsonObject, Request, Task

_DONE: Final[tuple[Status, ...]] = ("ok",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """An image with another model's embedding: the facts for a new request."""

    id: str
    uri: str
    model: str
    revision: str
    has_caption: bool
    metadata: JsonObject | None
    signed_at: int
    key: bytes | None

    def request(self) -> Keyed:
        """Return the request for the same URI and tasks; the bytes there may have changed."""
        tasks = (Task.EMBED, Task.CAPTION) if self.has_caption else (Task.EMBED,)
        request = Request(
            id=self.id,
            image=ImageReference(uri=self.uri),
            tasks=tasks,
            metadata=self.metadata,
        )
        try:
            key = self.id if self.key is None else self.key.decode()
        except UnicodeDecodeError:
            key = self.id
        return Keyed(request=request, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A model, at one revision or at any (None)."""

    model: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Return the model of `MODEL` or `MODEL@REVISION`."""
        model, _, revision = text.partition("@")
        return cls(model=model, revision=revision or None)

    def is_of(self, model: str, revision: str) -> bool:
        """Return whether the model at the revision is this one."""
        return self.model == model and self.revision in (None, revision)


def outdated_in(spool: Spool, wanted: ModelName) -> Iterator[Outdated]:
    """Yield the images with an embedding of another model than `wanted`."""
    for row in spool.rows(_DONE):
        result = row.result
        embedding, image = result.embedding, result.image
        if embedding and image and not wanted.is_of(embedding.model, embedding.revision):
            yield Outdated(
                id=result.id,
                uri=image.uri,
                model=embedding.model,
                revision=embedding.revision,
                has_caption=result.caption is not None,
                metadata=result.metadata,
                signed_at=row.signed_at,
                key=row.key,
            )
