"""What is up: broker, topics, consumer, gallery, and a folder whose pictures are published."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from examples.demo.plan import Plan
from examples.processes import (
    ROOT,
    Consumer,
    ended_by_itself,
    running_broker,
    running_consumer,
)
from examples.up.folder import requests_of
from imagelane.terminal import live_line, say
from producer import Publisher
from producer.cli.folders import LeftOut
from producer.cli.outcome_lines import name_of
from producer.gallery.collection import Picture
from producer.gallery.run import Gallery, running_gallery
from producer.gallery.settings import GallerySettings
from producer.result_lines import write_lines
from producer.topics import ensure_topics, topic_plans

FOLDER: Final = ROOT / "build" / "up"
BROKER_PORT: Final = 9292
_CONSUMER: Final = {"STOP_SECONDS": "2", "BLIP_IDLE_SECONDS": "60"}
_LAST_LINES: Final = 20
_RESULTS_FILE: Final = "results.jsonl"


@dataclass(slots=True, kw_only=True)
class Progress:
    """The numbers of the live line."""

    gallery: Gallery
    started_at: float = field(default_factory=time.monotonic)
    blip: str = "out"

    def line(self) -> str:
        """Return the live line: done of all, rate, time left, failures, where BLIP is."""
        counts = self.gallery.collection.counts
        done, rate = counts["ok"] + counts["error"], self.gallery.collection.rate()
        left = self.gallery.feed.open or 0
        parts = [f"{done}/{done + left} done", f"{rate:.1f}/s", f"{counts['error']} failed"]
        if left and rate:
            parts.append(f"ETA {left / rate:.0f} s")
        return "  ".join([*parts, f"BLIP {self.blip}", "Ctrl-C ends it"])


async def up(plan: Plan, environment: Mapping[str, str]) -> None:
    """Start everything, say where it is, and stay until cancelled.

    Raises:
        FatalError: something cannot start, or ended by itself.
    """
    folder = folder_of(environment)
    async with AsyncExitStack() as stack:
        bootstrap, broker = plan.bootstrap, None
        if bootstrap is None:
            port = int(own_address(environment).partition(":")[2])
            broker = await stack.enter_async_context(running_broker(folder / "broker", port))
            bootstrap = broker.address
        wire = plan.wire(bootstrap, _secret(folder))
        settings = _gallery_settings(plan, wire, environment)
        await ensure_topics(settings, topic_plans(settings, partitions=1, replication=None))
        consumer = await stack.enter_async_context(
            running_consumer(
                {**environment, **wire, **plan.consumer(), **_CONSUMER},
                folder,
            )
        )
        gallery = await stack.enter_async_context(running_gallery(settings))
        publisher = await stack.enter_async_context(Publisher(settings))
        _say_where(plan, bootstrap, gallery.address, folder)
        progress = Progress(gallery=gallery)
        parts = {
            gallery.reading,
            asyncio.create_task(_publish(plan.pictures, gallery, publisher)),
            asyncio.create_task(_show_pictures(gallery)),
            asyncio.create_task(_follow(consumer, progress)),
        }
        if broker:
            parts.add(asyncio.create_task(broker.end()))
            # With this broker alone: the places in the file are those of one cluster.
            parts.add(
                asyncio.create_task(write_lines(settings, folder / _RESULTS_FILE, follow=True))
            )
        async with live_line(progress.line):
            await _until_one_ends(parts, leave=gallery.reading)


def own_address(environment: Mapping[str, str]) -> str:
    """Return the address of the embedded broker."""
    return f"127.0.0.1:{environment.get('UP_PORT') or BROKER_PORT}"


async def _until_one_ends(parts: set[asyncio.Task[Any]], leave: asyncio.Task[None]) -> None:
    """Raise what the first one raises; end the others but `leave`, which somebody else ends."""
    try:
        ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in ended:
            part.result()
    finally:
        for part in parts - {leave}:
            part.cancel()
        await asyncio.wait(parts - {leave})


async def _publish(folder: Path, gallery: Gallery, publisher: Publisher) -> None:
    await gallery.feed.loaded.wait()  # what is done is known then
    left_out = LeftOut()

    def is_done(id: str) -> bool:
        return gallery.collection.get(id) is not None

    async for _ in publisher.publish_many(requests_of(folder, is_done, left_out)):
        if left_out.counts:
            for line in left_out.lines():
                say(line)
            left_out.counts.clear()


async def _show_pictures(gallery: Gallery) -> None:
    page = gallery.feed.opened()
    try:
        while True:
            await page.woken.wait()
            page.woken.clear()
            while page.waiting:
                say(_line(page.waiting.popleft()), fit=True)
    finally:
        gallery.feed.closed(page)


def _line(picture: Picture) -> str:
    name = name_of(picture.uri)
    if picture.status == "ok":
        return f"ok      {name}: {picture.caption or 'embedded'}"
    return f"failed  {name}: {picture.code}: {picture.message}"


async def _follow(consumer: Consumer, progress: Progress) -> None:
    """Show what the consumer does, until it ends by itself."""
    async for event in consumer.follow():
        if event.name == "ready":
            seconds = time.monotonic() - progress.started_at
            say(f"ready: the consumer is in the group, {seconds:.1f} s after the page")
        elif event.name == "blip on device":
            progress.blip = "in"
        elif event.name == "blip offloaded":
            progress.blip = "out"
    code = await consumer.ended()
    for line in consumer.lines[-_LAST_LINES:]:
        say(line, err=True)
    raise ended_by_itself(code, see="above")


def folder_of(environment: Mapping[str, str]) -> Path:
    """Return where broker, secret and consumer have their files; it is made."""
    folder = Path(environment.get("UP_DIR") or FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _secret(folder: Path) -> str:
    """Return the folder's own secret, made once, so that a restart verifies what is there."""
    file = folder / "secret"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_text().strip()


def _gallery_settings(
    plan: Plan, wire: Mapping[str, str], environment: Mapping[str, str]
) -> GallerySettings:
    own = {name: value for name, value in environment.items() if name.startswith("GALLERY_")}
    return GallerySettings.from_env(
        {**own, **wire, "FILE_ROOTS": str(plan.pictures), "GROUP_ID": plan.group_id}
    )


def _say_where(plan: Plan, bootstrap: str, page: str, folder: Path) -> None:
    kind = "your cluster" if plan.bootstrap else "the embedded broker, for trying out alone"
    say(f"broker    {bootstrap}   ({kind}; its records stay in {folder})")
    say(f"page      {page}")
    if not plan.bootstrap:
        say(f"results   {folder / _RESULTS_FILE}   (a line of JSON each)")
    say(f"pictures  {plan.pictures}   (what lands there is published)")
    if plan.tiny:
        say("models    tiny ones, trained on drawings of shapes; MODELS=hub takes the real ones")
    else:
        say("models    the real ones; where they are not on this machine, the hub sends some 2 GB")
    say("In another terminal, in this folder:")
    group = f" GROUP_ID={plan.group_id}" if plan.bootstrap else ""
    say(f"  export BOOTSTRAP_SERVERS={bootstrap} SECRET_API_KEY_FILE={folder / 'secret'}{group}")
    say("  .venv/bin/imagelane results --follow")
