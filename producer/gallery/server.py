"""The gallery's routes: the page, its pictures, the events, and the search."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, unquote

import orjson
from aiohttp import web

from imagelane.token_bucket import TokenBucket
from producer.gallery.collection import Collection, Model, Picture
from producer.gallery.feed import Feed, Page
from producer.gallery.guard import guard, stream_headers
from schemas.messages import MAX_TEXT_CHARS

PAGE_PICTURES: Final = 60
FOUND_PICTURES: Final = 24
NEIGHBOURS: Final = 8
STATE_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 256 * 1024
_STATIC: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "gallery.css": ("gallery.css", "text/css; charset=utf-8"),
    "gallery.js": ("gallery.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_TYPES: Final = (  # first bytes of the formats that browsers show
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (0, b"BM", "image/bmp"),
)


class CannotSearch(Exception):
    """The words cannot be searched now; the message is for the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryVector:
    """The vector of a search's words, and its model."""

    model: Model
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that the routes use.

    `embed` lets the consumer embed words, and raises `CannotSearch`. `open_image` returns a file
    descriptor for a URI below the gallery's roots, or None.
    """

    collection: Collection
    feed: Feed
    embed: Callable[[str], Awaitable[QueryVector]]
    open_image: Callable[[str], int | None]
    searches: TokenBucket
    clock: Callable[[], float]


PARTS: Final = web.AppKey("parts", Parts)


def application(parts: Parts, hosts: frozenset[str], token: str | None) -> web.Application:
    """Return the gallery; `hosts` and `token` are those of `guard`."""
    app = web.Application(middlewares=[guard(hosts, token)], client_max_size=64 * 1024)
    app[PARTS] = parts
    app.router.add_get("/", _static)
    app.router.add_get("/static/{name}", _static)
    app.router.add_get("/api/pictures", _pictures)
    app.router.add_get("/api/pictures/{id}", _picture)
    app.router.add_get("/api/pictures/{id}/image", _image)
    app.router.add_get("/api/state", _state)
    app.router.add_get("/api/events", _events)
    app.router.add_post("/api/search", _search)
    return app


async def _static(request: web.Request) -> web.Response:
    try:
        name, content_type = _STATIC[request.match_info.get("name", "")]
    except KeyError:
        raise web.HTTPNotFound from None
    body = files("producer.gallery").joinpath("static", name).read_bytes()
    headers = {"Content-Type": content_type, "Cache-Control": "no-cache"}
    return web.Response(body=body, headers=headers)


async def _pictures(request: web.Request) -> web.Response:
    before = request.query.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 16):
        raise web.HTTPBadRequest(text="before is the number of a picture")
    status = request.query.get("status") or None
    found = request.app[PARTS].collection.page(
        int(before) if before else None, PAGE_PICTURES, status
    )
    full = len(found) == PAGE_PICTURES
    cards = [_card(picture) for picture in found]
    return _json({"pictures": cards, "next": found[-1].number if full else None})


async def _picture(request: web.Request) -> web.Response:
    parts = request.app[PARTS]
    picture = _wanted(request)
    near = parts.collection.neighbours(picture, NEIGHBOURS)
    document = orjson.loads(picture.details)
    return _json(
        {
            "picture": _card(picture),
            "facts": list(_facts(picture, document)),
            "json": orjson.dumps(document, option=orjson.OPT_INDENT_2).decode(),
            "neighbours": [_card(found, score) for found, score in near],
        }
    )


async def _image(request: web.Request) -> web.StreamResponse:
    """Send the bytes of a `file:` image below the roots, if a browser can show them."""
    descriptor = await asyncio.to_thread(request.app[PARTS].open_image, _wanted(request).uri)
    if descriptor is None:
        raise web.HTTPNotFound(text="the gallery does not read this one")
    try:
        head = await asyncio.to_thread(os.read, descriptor, _CHUNK_BYTES)
        content_type = next((t for at, magic, t in _TYPES if head[at:].startswith(magic)), None)
        if content_type is None:
            raise web.HTTPUnsupportedMediaType(text="no format that browsers show")
        response = web.StreamResponse(headers=stream_headers() | {"Content-Type": content_type})
        response.headers["Cache-Control"] = "private, max-age=600"
        await response.prepare(request)
        while head:
            await response.write(head)
            head = await asyncio.to_thread(os.read, descriptor, _CHUNK_BYTES)
        await response.write_eof()
        return response
    finally:
        os.close(descriptor)


async def _state(request: web.Request) -> web.Response:
    return _json(request.app[PARTS].feed.state())


async def _events(request: web.Request) -> web.StreamResponse:
    """Send pictures as they come, and the numbers every second (server-sent events)."""
    feed = request.app[PARTS].feed
    headers = stream_headers() | {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    response = web.StreamResponse(headers=headers)
    page = feed.opened()
    try:
        await response.prepare(request)
        async for event, data in _news(feed, page):
            await response.write(b"event: %b\ndata: %b\n\n" % (event, orjson.dumps(data)))
    except ConnectionError:
        pass  # the page is closed
    finally:
        feed.closed(page)
    return response


async def _news(feed: Feed, page: Page) -> AsyncIterator[tuple[bytes, Any]]:
    while True:
        if page.waiting:
            pictures = [_card(picture) for picture in page.waiting]
            page.waiting.clear()
            yield b"pictures", pictures
        yield b"state", feed.state()
        page.woken.clear()
        try:
            async with asyncio.timeout(STATE_SECONDS):
                await page.woken.wait()
        except TimeoutError:
            pass


async def _search(request: web.Request) -> web.Response:
    parts = request.app[PARTS]
    if not parts.searches.take(1, parts.clock()):
        raise web.HTTPTooManyRequests(text="Too many searches at once; wait a second.")
    words = await _words(request)
    try:
        found = await parts.embed(words)
    except CannotSearch as exc:
        raise web.HTTPServiceUnavailable(text=str(exc)) from exc
    near = parts.collection.nearest(found.model, found.vector, FOUND_PICTURES)
    notice = None
    if not near and parts.collection.models:
        notice = (
            f"The consumer's model is {found.model.name} at {found.model.revision}, and no picture "
            "has a vector of it. `imagelane reembed` makes them."
        )
    return _json({"pictures": [_card(picture, score) for picture, score in near], "notice": notice})


async def _words(request: web.Request) -> str:
    try:
        words = orjson.loads(await request.read())["words"]
    except (ValueError, KeyError, TypeError):
        raise web.HTTPBadRequest(text="words are missing") from None
    if not isinstance(words, str) or not 0 < len(words) <= MAX_TEXT_CHARS:
        raise web.HTTPBadRequest(text=f"words are 1 to {MAX_TEXT_CHARS} characters")
    return words


def _wanted(request: web.Request) -> Picture:
    picture = request.app[PARTS].collection.get(request.match_info["id"])
    if picture is None:
        raise web.HTTPNotFound(text="there is no such picture")
    return picture


def _card(picture: Picture, score: float | None = None) -> dict[str, Any]:
    """Return a picture's part of the grid."""
    is_file = picture.shown.startswith("file:")
    card = {
        "id": picture.id,
        "name": unquote(picture.shown.rpartition("/")[2]) if is_file else picture.shown,
        "status": picture.status,
        "caption": picture.caption,
        "code": picture.code,
        "message": picture.message,
        "image": f"/api/pictures/{quote(picture.id)}/image" if is_file else None,
        "why": picture.shown.partition(":")[0] + ": pictures are not fetched by this page",
    }
    return card if score is None else card | {"score": score}


def _facts(picture: Picture, document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values for the page's list, in its order."""
    image = document.get("image") or {}
    source = document.get("source") or {}
    rows = [("Picture", picture.shown), ("Id", picture.id)]
    if picture.code:
        rows.append(("Failed", f"{picture.code}: {picture.message}"))
    if image.get("width"):
        rows.append(("Size", f"{image['width']} x {image['height']}, {image.get('format')}"))
    for title, part in (("Embedding by", "embedding"), ("Caption by", "caption")):
        if made := document.get(part):
            rows.append((title, f"{made.get('model')} at {made.get('revision')}"))
    if timing := document.get("timing_ms"):
        times = ", ".join(f"{n} {ms:.0f} ms" for n, ms in timing.items() if ms is not None)
        rows.append(("Times", times))
    place = f"{source.get('topic')}[{source.get('partition')}]@{source.get('offset')}"
    rows.append(("Request at", place))
    return rows


def _json(document: object) -> web.Response:
    return web.Response(
        body=orjson.dumps(document),
        headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
    )
