"""`data:` references: a small image inside the request itself, in strict base64."""

import base64
import re
from dataclasses import dataclass
from typing import Final

from consumer.errors import Failed
from consumer.images.sources import Room, forbidden, too_large
from imagelane.uris import display
from schemas import Code

_HEADER: Final = re.compile(r"data:image/[a-z0-9][a-z0-9.+-]*;base64", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Decodes `data:image/...;base64,`, up to `max_bytes` decoded; 0 allows none."""

    max_bytes: int

    async def fetch(self, uri: str, max_bytes: int, room: Room) -> bytes:
        """Return the decoded bytes, up to the smaller of the two limits.

        Raises:
            Failed: `forbidden_source` (switched off, not an image type, not base64),
                `image_too_large`, or `not_an_image`: the payload is not base64.
        """
        if self.max_bytes <= 0:
            raise forbidden(uri, "switched off (DATA_MAX_BYTES)")
        header, _, payload = uri.partition(",")
        if not _HEADER.fullmatch(header):
            raise forbidden(uri, "only data:image/...;base64, is allowed")
        limit = min(self.max_bytes, max_bytes)
        # By the length of the text: a payload that is too large is never decoded.
        byte_length = len(payload) // 4 * 3 - payload[-2:].count("=")
        if byte_length > limit:
            raise too_large(uri, limit)
        await room.resize(byte_length)
        return _decode(payload, uri)


def _decode(payload: str, uri: str) -> bytes:
    """Decode base64 in the one canonical form of RFC 4648, section 3.5."""
    try:
        data = base64.b64decode(payload, validate=True)
    except ValueError as exc:
        raise Failed(Code.NOT_AN_IMAGE, f"{display(uri)}: not valid base64") from exc
    # b64decode accepts surplus padding, and bits after the last byte.
    if base64.b64encode(data).decode() != payload:
        raise Failed(Code.NOT_AN_IMAGE, f"{display(uri)}: not canonical base64")
    return data
