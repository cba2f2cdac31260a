"""Requests, made of URIs, paths or texts."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from producer.errors import InvalidRequest
from producer.ids import new_id
from schemas import ImageReference, Request, Task
from schemas.codec import describe_errors

# Two characters or more: `C:` is a drive.
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
BOTH_TASKS: Final = (Task.EMBED, Task.CAPTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A request with a key of its own: records with the same key go to the same partition."""

    request: Request
    key: str


Processable = str | Path | Request | Keyed


def image_request(
    uri: str | Path,
    *,
    tasks: tuple[Task, ...] = BOTH_TASKS,
    id: str | None = None,
    sha256: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Request:
    """Make a request for the image at a URI or in a file, with a new id unless one is given.

    Raises:
        InvalidRequest: a field breaks the wire contract, or the path names no file.
    """
    try:
        return Request.model_validate(
            {
                "id": id or new_id(),
                "image": ImageReference(uri=uri_of(uri), sha256=sha256),
                "tasks": tasks,
                "metadata": metadata,
            }
        )
    except ValidationError as exc:
        raise InvalidRequest(f"no request: {describe_errors(exc)}") from exc


def text_request(
    text: str, *, id: str | None = None, metadata: dict[str, Any] | None = None
) -> Request:
    """Make a request for the embedding of a text, with a new id unless one is given.

    Raises:
        InvalidRequest: a field breaks the wire contract.
    """
    try:
        return Request.model_validate({"id": id or new_id(), "text": text, "metadata": metadata})
    except ValidationError as exc:
        raise InvalidRequest(f"no request: {describe_errors(exc)}") from exc


def request_for(item: Processable | None, text: str | None) -> Request | Keyed:
    """Return the request for one of the two.

    Raises:
        InvalidRequest: both or none are given, or the request breaks the wire contract.
    """
    if (item is None) == (text is None):
        raise InvalidRequest("give one of the two: a path, URI or request, or `text`")
    if text is not None:
        return text_request(text)
    return item if isinstance(item, Request | Keyed) else image_request(item or "")


def uri_of(reference: str | Path) -> str:
    """Return a URI unchanged, or the URI of a path's file.

    Raises:
        InvalidRequest: the path names no file.
    """
    if isinstance(reference, str) and SCHEME.match(reference):
        return reference
    try:
        path = Path(reference)
        if path.is_file():
            return path.resolve().as_uri()
    except (OSError, ValueError) as exc:  # too long a name, a NUL in it
        raise InvalidRequest(f"no path: {exc}") from exc
    raise InvalidRequest(f"no such file: {reference}; give a path of a file, or a URI")
