"""The gallery over real HTTP: what it shows, what it refuses, and that nothing hostile is HTML."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from imagelane.exits import FatalError
from imagelane.token_bucket import TokenBucket
from producer.gallery.collection import RATE_SECONDS, Collection, Model
from producer.gallery.feed import QUIET_SECONDS, Feed
from producer.gallery.guard import COOKIE
from producer.gallery.server import CannotSearch, Parts, QueryVector, application
from producer.gallery.settings import GallerySettings
from schemas import Result

HOSTILE = '<img src=x onerror="alert(1)">'
MODEL = Model("clip", "1")


def result(id: str, vector: list[float] | None = None, **changes: Any) -> dict[str, Any]:
    document = {
        "version": 1,
        "id": id,
        "status": "ok",
        "image": {
            "uri": f"file:///pictures/{id}.png",
            "sha256": "0" * 64,
            "width": 4,
            "height": 3,
            "format": "PNG",
        },
        "caption": {"model": "blip", "revision": "1", "text": f"caption of {id}"},
        "timing_ms": {"fetch": 1.0, "decode": 2.5},
        "source": {"topic": "image.ingest", "partition": 0, "offset": 7},
    }
    if vector is not None:
        document["embedding"] = {
            "model": MODEL.name,
            "revision": MODEL.revision,
            "dim": len(vector),
            "encoding": "float",
            "data": vector,
        }
    return document | changes


class Gallery:
    """A running gallery, and what a test puts into it."""

    def __init__(self, roots: Path | None = None) -> None:
        self.now = 1000.0
        self.collection = Collection(lambda: self.now)
        self.feed = Feed(self.collection, lambda: self.now)
        self.feed.loaded.set()
        self.words: list[str] = []
        self.roots = roots
        self.limit = TokenBucket(per_second=1, burst=3)
        self.base = ""
        self.http: aiohttp.ClientSession

    def put(self, document: dict[str, Any], signed_at: int = 1, offset: int = 0) -> Any:
        value = json.dumps(document).encode()
        parsed = Result.model_validate(document)
        picture = self.collection.put(parsed, (signed_at, 0, offset), value)
        if picture:
            self.feed.came(picture)
        return picture

    async def embed(self, words: str) -> QueryVector:
        self.words.append(words)
        if words == "nobody":
            raise CannotSearch("no consumer answered in 10 s")
        return QueryVector(model=MODEL, vector=(1.0, 0.0))

    def open_image(self, uri: str) -> int | None:
        if self.roots is None:
            return None
        path = self.roots / uri.rpartition("/")[2]
        return os.open(path, os.O_RDONLY) if path.exists() else None

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        return await self.ask("GET", path, **options)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.request(
            method, self.base + path, allow_redirects=False, **options
        ) as response:
            body = await response.read()
            is_json = response.headers.get("Content-Type") == "application/json"
            return response.status, json.loads(body) if is_json else body

    async def search(self, words: object, **headers: str) -> tuple[int, Any]:
        own = {"Origin": self.base} | headers
        return await self.ask("POST", "/api/search", json={"words": words}, headers=own)


@asynccontextmanager
async def running(
    gallery: Gallery, token: str | None = None, hosts: frozenset[str] = frozenset()
) -> AsyncIterator[Gallery]:
    parts = Parts(
        collection=gallery.collection,
        feed=gallery.feed,
        embed=gallery.embed,
        open_image=gallery.open_image,
        searches=gallery.limit,
        clock=lambda: gallery.now,
    )
    async with TestServer(application(parts, hosts, token)) as server:
        gallery.base = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as gallery.http:
            yield gallery


async def test_pictures_come_newest_first_and_by_pages() -> None:
    """Each page goes on below the one before, whatever came meanwhile."""
    async with running(Gallery()) as gallery:
        for number in range(130):
            gallery.put(result(f"p{number}"))
        _, first = await gallery.get("/api/pictures")
        gallery.put(result("later"))
        _, second = await gallery.get(f"/api/pictures?before={first['next']}")
        _, third = await gallery.get(f"/api/pictures?before={second['next']}")
    ids = [card["id"] for page in (first, second, third) for card in page["pictures"]]
    assert ids == [f"p{number}" for number in range(129, -1, -1)]
    assert third["next"] is None


async def test_of_two_results_of_an_id_the_later_signature_holds() -> None:
    """An old error that is copied behind a newer result changes nothing."""
    async with running(Gallery()) as gallery:
        gallery.put(result("a", [1.0, 0.0]), signed_at=10)
        failed = result("a", status="error", image={"uri": "file:///pictures/a.png"}) | {
            "caption": None,
            "error": {"code": "not_found", "message": "gone", "attempts": 1},
        }
        assert gallery.put(failed, signed_at=9, offset=99) is None
        assert gallery.collection.counts == {"ok": 1, "error": 0}
        assert gallery.put(failed, signed_at=11) is not None
        assert gallery.collection.counts == {"ok": 0, "error": 1}
        assert gallery.collection.models == {}
        _, page = await gallery.get("/api/pictures")
    assert [card["code"] for card in page["pictures"]] == ["not_found"]


async def test_search_finds_the_nearest_pictures_of_its_model() -> None:
    """Pictures of another model are not among them, however near their numbers are."""
    async with running(Gallery()) as gallery:
        gallery.put(result("far", [0.0, 1.0]))
        gallery.put(result("near", [0.8, 0.6]))
        other = result("other", [1.0, 0.0])
        other["embedding"]["revision"] = "2"
        gallery.put(other)
        status, found = await gallery.search("two green stars")
    assert status == 200
    assert [card["id"] for card in found["pictures"]] == ["near", "far"]
    assert found["pictures"][0]["score"] == pytest.approx(0.8)
    assert gallery.words == ["two green stars"]


async def test_picture_has_facts_json_and_neighbours() -> None:
    """The vector itself is not among them."""
    async with running(Gallery()) as gallery:
        gallery.put(result("a", [1.0, 0.0]))
        gallery.put(result("b", [0.6, 0.8]))
        _, answer = await gallery.get("/api/pictures/a")
    assert [card["id"] for card in answer["neighbours"]] == ["b"]
    assert ["Times", "fetch 1 ms, decode 2 ms"] in answer["facts"]
    assert ["Request at", "image.ingest[0]@7"] in answer["facts"]
    assert json.loads(answer["json"])["embedding"]["data"] == "…"


async def test_new_pictures_are_sent_as_they_come() -> None:
    """An open page gets the picture without asking, and the numbers."""
    async with running(Gallery()) as gallery:
        async with gallery.http.get(gallery.base + "/api/events") as events:
            gallery.put(result("live", caption={"model": "m", "revision": "1", "text": HOSTILE}))
            async with asyncio.timeout(10):
                async for line in events.content:
                    if line.startswith(b"data: [") and b"live" in line:
                        break
        assert HOSTILE in json.loads(line.removeprefix(b"data: "))[0]["caption"]


async def test_image_is_sent_if_a_browser_shows_it(tmp_path: Path) -> None:
    """By its first bytes, whatever it is called; what could be a page of HTML never is."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(700_000))
    (tmp_path / "b.png").write_bytes(b"<svg onload=alert(1)>")
    async with running(Gallery(tmp_path)) as gallery:
        for id in ("a", "b", "c"):
            gallery.put(result(id))
        status, body = await gallery.get("/api/pictures/a/image")
        assert (status, len(body)) == (200, 700_008)
        assert (await gallery.get("/api/pictures/b/image"))[0] == 415
        assert (await gallery.get("/api/pictures/c/image"))[0] == 404


@pytest.mark.parametrize("path", ["/", "/api/state", "/api/pictures", "/api/pictures/no", "/no"])
async def test_every_answer_forbids_what_it_does_not_need(path: str) -> None:
    """Errors too: no inline script, no frame, no other origin."""
    async with running(Gallery()) as gallery, gallery.http.get(gallery.base + path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
async def test_host_of_somebody_else_is_refused(host: str) -> None:
    """A name that was rebound to this address is not ours."""
    async with running(Gallery()) as gallery:
        assert (await gallery.get("/api/state", headers={"Host": host}))[0] == 403


async def test_host_of_the_settings_is_allowed() -> None:
    """With any port: a proxy may be in front."""
    async with running(Gallery(), hosts=frozenset({"pictures.example"})) as gallery:
        headers = {"Host": "pictures.example:8443"}
        assert (await gallery.get("/api/state", headers=headers))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_page_of_another_site_cannot_search(origin: str) -> None:
    """The gallery would sign for it."""
    async with running(Gallery()) as gallery:
        assert (await gallery.search("words", Origin=origin))[0] == 403
        status, _ = await gallery.ask("POST", "/api/search", json={"words": "words"})
        assert status == 403
    assert gallery.words == []


async def test_searches_are_limited() -> None:
    """Three at once, then one a second."""
    async with running(Gallery()) as gallery:
        statuses = [(await gallery.search("words"))[0] for _ in range(5)]
        gallery.now += 1
        statuses.append((await gallery.search("words"))[0])
    assert statuses == [200, 200, 200, 429, 429, 200]


@pytest.mark.parametrize("words", ["", "x" * 4097, 7, None, ["a"]])
async def test_what_is_no_text_is_not_signed(words: object) -> None:
    """The contract's limits hold before anything is published."""
    async with running(Gallery()) as gallery:
        assert (await gallery.search(words))[0] == 400
    assert gallery.words == []


async def test_search_without_a_consumer_says_so() -> None:
    """The page shows the sentence."""
    async with running(Gallery()) as gallery:
        status, body = await gallery.search("nobody")
    assert (status, body) == (503, b"no consumer answered in 10 s")


async def test_token_is_asked_for_once() -> None:
    """Its address becomes a cookie that no script and no other site can use."""
    async with running(Gallery(), token="t" * 20) as gallery:
        assert (await gallery.get("/api/state"))[0] == 401
        assert (await gallery.get("/?token=wrong"))[0] == 401
        async with gallery.http.get(
            gallery.base + "/?token=" + "t" * 20, allow_redirects=False
        ) as response:
            cookie = response.cookies[COOKIE]
            assert (response.status, response.headers["Location"]) == (303, "/")
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        headers = {"Cookie": f"{COOKIE}={cookie.value}"}
        assert (await gallery.get("/api/state", headers=headers))[0] == 200


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, True),
        ({"GALLERY_HOST": "::1"}, True),
        ({"GALLERY_HOST": "0.0.0.0"}, False),
        ({"GALLERY_HOST": "0.0.0.0", "GALLERY_TOKEN": "short"}, False),
        ({"GALLERY_HOST": "0.0.0.0", "GALLERY_TOKEN": "t" * 16}, True),
        ({"GALLERY_HOST": "0.0.0.0", "GALLERY_OPEN": "true"}, True),
    ],
)
def test_address_that_others_reach_needs_a_token(given: dict[str, str], allowed: bool) -> None:
    """Or somebody's word that it is not needed."""
    environment = {"SECRET_API_KEY": "s" * 32} | given
    if allowed:
        GallerySettings.from_env(environment)
    else:
        with pytest.raises(FatalError, match="GALLERY_TOKEN"):
            GallerySettings.from_env(environment)


def test_rate_leaves_out_what_was_there_before() -> None:
    """After a restart, old results are no speed."""
    gallery = Gallery()
    gallery.put(result("old", [1.0, 0.0]))
    gallery.collection.restart_rate()
    assert gallery.feed.state()["rate"] == 0
    gallery.put(result("new", [1.0, 0.0]))
    assert gallery.feed.state()["rate"] == pytest.approx(1 / RATE_SECONDS)


def test_results_that_come_are_open_no_longer() -> None:
    """The topic is looked at every two seconds: what is done meanwhile does not wait."""
    gallery = Gallery()
    gallery.feed.waiting(2)
    for name, still_open in (("a", 1), ("b", 0), ("c", 0)):
        gallery.put(result(name, [1.0, 0.0]))
        assert gallery.feed.state()["open"] == still_open


def test_page_says_what_is_the_case() -> None:
    """No pictures, no consumer, more than one model: each its own sentence."""
    gallery = Gallery()
    assert "No pictures yet" in gallery.feed.state()["notice"]
    gallery.feed.unverifiable_count = 3
    assert "None of 3 results verifies: is SECRET_API_KEY" in gallery.feed.state()["notice"]
    gallery.feed.unverifiable_count = 0
    gallery.feed.waiting(5)
    assert gallery.feed.state()["notice"] is None
    gallery.now += QUIET_SECONDS + 1
    assert "is a consumer running?" in gallery.feed.state()["notice"]
    gallery.feed.waiting(0)
    gallery.put(result("a", [1.0, 0.0]))
    assert gallery.feed.state()["notice"] is None
    other = result("b", [1.0, 0.0])
    other["embedding"]["model"] = "siglip"
    gallery.put(other)
    assert "cannot be compared" in gallery.feed.state()["notice"]


async def test_password_and_signature_of_a_link_are_not_shown() -> None:
    """Neither in the grid nor in the facts nor in the JSON."""
    secret = "https://user:hunter2@cdn.example/a.jpg?X-Amz-Signature=hunter3"
    document = result("a")
    document["image"]["uri"] = secret
    async with running(Gallery()) as gallery:
        gallery.put(document)
        _, page = await gallery.get("/api/pictures")
        _, answer = await gallery.get("/api/pictures/a")
    assert page["pictures"][0]["name"] == "https://cdn.example/a.jpg..."
    assert "hunter" not in json.dumps([page, answer])


async def test_results_of_texts_are_no_pictures() -> None:
    """A search's own result is not in the grid and not found."""
    async with running(Gallery()) as gallery:
        document = result("q", [1.0, 0.0])
        del document["image"], document["caption"]
        assert gallery.put(document) is None
        assert (await gallery.search("words"))[1]["pictures"] == []
