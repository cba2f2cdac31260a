"""The pictures of an npz file that are nearest to a vector. Needs the extra `export`."""

from pathlib import Path
from typing import NamedTuple

from imagelane.exits import ExitCode, FatalError
from schemas import Embedding


class Match(NamedTuple):
    """A picture, and its cosine to the query's vector."""

    score: float
    id: str
    uri: str
    caption: str


def nearest(path: Path, embedding: Embedding, count: int) -> list[Match]:
    """Return the `count` nearest pictures, the nearest first.

    Raises:
        FatalError: `imagelane results --to` did not write the file, or it is of another model.
    """
    import numpy as np

    try:
        with np.load(path) as found:
            model, revision = str(found["model"]), str(found["revision"])
            ids, uris, captions = found["ids"], found["uris"], found["captions"]
            vectors = found["vectors"]
    except (OSError, ValueError, KeyError) as exc:
        reason = getattr(exc, "strerror", None) or "not written by `imagelane results --to`"
        raise FatalError(ExitCode.FAILED, f"{path}: {reason}") from exc
    if not len(ids):
        return []
    if (model, revision) != (embedding.model, embedding.revision):
        raise FatalError(
            ExitCode.FAILED,
            f"{path} has vectors of {model} at {revision}, the consumer has {embedding.model} at "
            f"{embedding.revision}; they cannot be compared: `imagelane reembed`, "
            f"then `imagelane results --to {path}`",
        )
    scores = vectors @ np.array(embedding.vector(), dtype=np.float32)
    return [
        Match(float(scores[at]), str(ids[at]), str(uris[at]), str(captions[at]))
        for at in np.argsort(-scores, kind="stable")[:count]
    ]
