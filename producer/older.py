"""What a model made that is no longer wanted, and the request that has it made anew.

The id and the key stay: of two results of an id the later holds, so the new result takes the place
of the old one wherever results are stored by id, and the key brings the request to the partition
that knows the id.
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
class Older:
    """What is known of an image with an embedding: enough to ask for all of it again."""

    id: str
    uri: str
    model: str
    revision: str
    has_caption: bool
    metadata: JsonObject | None
    signed_at: int
    key: bytes | None

    def request(self) -> Keyed:
        """Return the request for the same image and tasks; its bytes may be others by now."""
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
    """A model, at one revision or at whichever."""

    model: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Return what `MODEL` or `MODEL@REVISION` names."""
        model, _, revision = text.partition("@")
        return cls(model=model, revision=revision or None)

    def is_of(self, model: str, revision: str) -> bool:
        """Tell whether the model at the revision is this one."""
        return self.model == model and self.revision in (None, revision)


def others_in(spool: Spool, wanted: ModelName) -> Iterator[Older]:
    """Yield the images of the results that hold whose embedding is of another model."""
    for row in spool.rows(_DONE):
        result = row.result
        embedding, image = result.embedding, result.image
        if embedding and image and not wanted.is_of(embedding.model, embedding.revision):
            yield Older(
                id=result.id,
                uri=image.uri,
                model=embedding.model,
                revision=embedding.revision,
                has_caption=result.caption is not None,
                metadata=result.metadata,
                signed_at=row.signed_at,
                key=row.key,
            )
