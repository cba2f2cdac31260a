"""The gallery in a real browser, on a real consumer with the tiny checkpoints."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from playwright.async_api import Page, async_playwright, expect

from producer import ProducerSettings, Publisher, image_request
from producer.gallery.run import running_gallery
from producer.gallery.settings import GallerySettings
from schemas import Signer
from schemas.headers import CONTENT_TYPE, JSON_CONTENT_TYPE
from tests.conftest import EmbeddedBroker, Topics, create_topics
from tests.consumer_process import PICTURES, consumer_process, environment

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000
HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"
PUBLISHED = ("two-green-stars.jpg", "large-red-circle.jpg", "hostile/not-a-picture.jpg")


@pytest.fixture
def chromium() -> str:
    """The browser's program; without one: skipped, or failed where REQUIRE_BROWSER=1."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("REQUIRE_BROWSER=1, but there is no chromium on PATH")
        pytest.skip("no chromium on PATH")
    return found


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield page
        await browser.close()


async def topics_of(broker: EmbeddedBroker) -> tuple[Topics, str]:
    tag = uuid4().hex[:8]
    topics = Topics(ingest=f"in.{tag}", results=f"out.{tag}", dlq=f"dlq.{tag}")
    queries = f"queries.{tag}"
    unpacked = {"compression.type": "uncompressed"}
    requests = [NewTopic(n, 1, 1, topic_configs=unpacked) for n in (topics.ingest, queries)]
    others = [NewTopic(name, 1, 1) for name in (topics.results, topics.dlq)]
    await create_topics(broker.bootstrap, *requests, *others)
    return topics, queries


async def publish_hostile_result(settings: ProducerSettings) -> None:
    """Publish a signed result whose caption is HTML: whoever has the secret can."""
    value = (
        b'{"version":1,"id":"hostile","status":"ok","timing_ms":{},"image":{"uri":"s3://b/k.jpg",'
        b'"sha256":"%b","width":1,"height":1,"format":"PNG"},"caption":{"model":"m",'
        b'"revision":"1","text":"%b"},"source":{"topic":"t","partition":0,"offset":0}}'
    ) % (b"0" * 64, HOSTILE.replace('"', '\\"').encode())
    signer = Signer(settings.keys, settings.results_topic)
    signature = signer.sign(id="hostile", timestamp=1, key=b"hostile", value=value)
    headers = [(CONTENT_TYPE, JSON_CONTENT_TYPE), *signature]
    async with AIOKafkaProducer(bootstrap_servers=list(settings.bootstrap_servers)) as producer:
        await producer.send_and_wait(settings.results_topic, value, b"hostile", headers=headers)


async def test_page_from_the_first_picture_to_a_search(
    embedded_broker: EmbeddedBroker, page: Page, secret: str, tmp_path: Path
) -> None:
    """Nothing yet; pictures come; a failure; a search; neighbours; a reload; hostile words."""
    topics, queries = await topics_of(embedded_broker)
    settings = environment(embedded_broker.bootstrap, topics, secret, QUERIES_TOPIC=queries)
    ours = GallerySettings.from_env(settings | {"GALLERY_PORT": "0"})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Policy" in said.text else None)
    expect.set_options(timeout=PATIENCE_MS)
    with consumer_process(settings, tmp_path / "log") as consumer:
        async with running_gallery(ours) as gallery, Publisher(ours) as publisher:
            await page.goto(gallery.address)
            await expect(page.locator("#notice")).to_contain_text("No pictures yet")
            await asyncio.to_thread(consumer.wait_for, "ready")
            for name in PUBLISHED:
                await publisher.publish(image_request(PICTURES / name))
            await expect(page.locator("#grid .card")).to_have_count(len(PUBLISHED))
            failed = page.locator(".card.failed")
            await expect(failed).to_contain_text("not_an_image")
            await expect(page.locator("#count-error")).to_have_text("1")
            await expect(page.locator("#notice")).to_be_hidden()

            await search(page, "two green stars on a black background")
            first = page.locator("#grid .card").first
            await expect(first).to_contain_text("two-green-stars.jpg")
            await expect(first.locator(".score")).to_contain_text("score 0.")
            loaded = "image => image.complete && image.naturalWidth > 0"
            assert await first.locator("img").evaluate(loaded)

            await first.click()
            await expect(page.locator("dialog")).to_be_visible()
            await expect(page.locator("#facts")).to_contain_text("tiny-clip")
            await expect(page.locator("#neighbours")).to_contain_text("large-red-circle.jpg")
            await page.keyboard.press("Escape")
            await expect(page.locator("dialog")).to_be_hidden()

            await publish_hostile_result(ours)
            await page.reload()
            await expect(page.locator("#grid .card")).to_have_count(len(PUBLISHED) + 1)
            await expect(page.locator("#grid")).to_contain_text(HOSTILE)
            assert await page.title() == "imagelane"

            await page.locator("button[data-show=error]").press("Enter")
            await expect(page.locator("#grid .card")).to_have_count(1)
    assert errors == []


async def search(page: Page, words: str) -> None:
    """Search by the keyboard alone."""
    await page.locator("#words").fill(words)
    await page.keyboard.press("Enter")
    await expect(page.locator("#heading")).to_have_text(f"Nearest to “{words}”")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_page_is_readable_at_phone_width(
    embedded_broker: EmbeddedBroker, page: Page, secret: str, scheme: Literal["light", "dark"]
) -> None:
    """Nothing is wider than the screen, and every control can be reached by Tab."""
    topics, queries = await topics_of(embedded_broker)
    settings = environment(embedded_broker.bootstrap, topics, secret, QUERIES_TOPIC=queries)
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": 320, "height": 720})
    async with running_gallery(
        GallerySettings.from_env(settings | {"GALLERY_PORT": "0"})
    ) as gallery:
        await publish_hostile_result(ProducerSettings.from_env(settings))
        await page.goto(gallery.address)
        await expect(page.locator("#grid .card")).to_have_count(1, timeout=PATIENCE_MS)
        width = "document.documentElement.scrollWidth <= window.innerWidth"
        assert await page.evaluate(width)
        reached = []
        for _ in range(6):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.outerHTML.slice(0, 40)"))
    assert any("words" in one for one in reached)
    assert any("card" in one for one in reached)
