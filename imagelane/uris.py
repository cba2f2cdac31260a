"""URIs of images for display: a URI can carry a password, or a link's signature."""

import re
from typing import Final

_MAX_DISPLAY_CHARS: Final = 200
# `file:` has a host after exactly two slashes alone. In any other scheme lenient parsers read a
# password after any number of slashes.
_FILE_USER = re.compile(r"//[^/]*@")
_OTHER_USER = re.compile(r"[/\\]*[^/\\]*@")


def display(uri: str) -> str:
    """Return `uri` for messages: without user, password, query or payload, printable and short."""
    scheme, colon, rest = uri.partition(":")
    if scheme.lower() == "data":
        return "data:..."  # all of it may be payload, if it is malformed
    # Signed links carry their signature in the query.
    place, *hidden = re.split(r"[?#]", rest if colon else scheme, maxsplit=1)
    if colon:
        user = _FILE_USER if scheme.lower() == "file" else _OTHER_USER
        place = f"{scheme}:" + user.sub(_slashes, place, count=1)
    text = place
    if not place.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in place)
    cut = len(text) > _MAX_DISPLAY_CHARS
    return text[:_MAX_DISPLAY_CHARS] + ("..." if cut or hidden else "")


def _slashes(match: re.Match[str]) -> str:
    text = match.group()
    return text[: len(text) - len(text.lstrip("/\\"))]
