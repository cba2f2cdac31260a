"""What nobody should send, what must become of each, and how it is sent."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.demo.expectations import Sent
from examples.demo.plan import Plan
from producer import ProducerSettings, Published, Publisher, image_request
from schemas import Code, Request

# Past the window of the signature on every kind of topic: 5 minutes, or a day with CreateTime.
_TWO_DAYS_SECONDS: Final = 2 * 86_400
_HOSTILE: Final = {
    "truncated.jpg": ("a JPEG cut in half", Code.CORRUPT_IMAGE),
    "damaged.png": ("a PNG with a broken block", Code.CORRUPT_IMAGE),
    "not-a-picture.jpg": ("a text file named .jpg", Code.NOT_AN_IMAGE),
    "html-page.png": ("a web page named .png", Code.NOT_AN_IMAGE),
    "empty.jpg": ("an empty file", Code.NOT_AN_IMAGE),
    "decompression-bomb-30000x30000.png": (
        "100 kB that unpack to 900 Mpixel",
        Code.TOO_MANY_PIXELS,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """An authentic request for an image that there is not, or not to be had."""

    what: str
    uri: str
    code: Code


def bad_requests(plan: Plan) -> list[Bad]:
    """Return the requests that are signed as they should be and cannot be served."""
    hostile = [
        Bad(what=what, uri=(plan.pictures / "hostile" / name).as_uri(), code=code)
        for name, (what, code) in (_HOSTILE.items() if plan.ours else ())
    ]
    missing = (plan.pictures / "there-is-no-such-picture.jpg").as_uri()
    outside = Path("/etc/passwd").as_uri()
    return [
        *hostile,
        Bad(what="a path outside the allowed folders", uri=outside, code=Code.FORBIDDEN_SOURCE),
        Bad(what="a file that is not there", uri=missing, code=Code.NOT_FOUND),
    ]


async def publish_bad(
    plan: Plan, publisher: Publisher, settings: ProducerSettings, other_secret: ProducerSettings
) -> list[Sent]:
    """Publish all that is bad: as anybody could, signed with another secret, and too late."""
    sent = [
        _sent(bad.what, await publisher.publish(image_request(bad.uri)), bad.code)
        for bad in bad_requests(plan)
    ]
    uri = plan.good()[0].uri
    async with Publisher(other_secret) as forger:
        forged = await forger.publish(image_request(uri))
    async with Publisher(settings, clock=lambda: time.time() - _TWO_DAYS_SECONDS) as late:
        stale = await late.publish(image_request(uri))
    return [
        *sent,
        _sent("a record signed with another secret", forged, Code.BAD_SIGNATURE),
        _sent("a record signed two days ago", stale, Code.STALE),
    ]


async def publish_repeat(publisher: Publisher, request: Request) -> Sent:
    """Publish a request that was published before, same id and all."""
    published = await publisher.publish(request)
    place = (published.partition, published.offset)
    return Sent(what="a request that was done before", place=place, repeat=True)


def _sent(what: str, published: Published, code: Code) -> Sent:
    return Sent(what=what, place=(published.partition, published.offset), code=code)
