"""What the demo shows, from top to bottom, once everything is up."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from examples.demo.expectations import (
    Sent,
    caption_faults,
    faults_of,
    is_complete,
    nearest,
)
from examples.demo.invalid_requests import publish_bad, publish_repeat
from examples.demo.outputs import OutputReader
from examples.demo.plan import BLIP_IDLE_SECONDS, Picture, Plan
from examples.demo.screen import Moment, Screen
from examples.processes import (
    Consumer,
    is_mapped,
    resident_mib,
)
from imagelane.exits import FatalError
from producer import Outcome, ProducerSettings, Published, Publisher, image_request
from schemas import Result, Task

_OUTCOME_SECONDS: Final = 20.0
_NEIGHBOURS_OF: Final = 4  # pictures


@dataclass(slots=True, kw_only=True)
class Demo:
    """One run: what it works with, and what it found out so far."""

    plan: Plan
    screen: Screen
    consumer: Consumer
    outputs: OutputReader
    settings: ProducerSettings
    other_secret: ProducerSettings  # the same cluster and topics, another secret
    pictures: list[Picture]
    sent: list[Sent] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Publish and show, from the consumer's start to BLIP's leaving."""
        patience = self.plan.patience_seconds
        ready = await self.consumer.event(
            "ready", lambda event: event.name == "ready", timeout_seconds=patience
        )
        self.screen.step(f"the consumer is ready ({ready.seconds:.1f} s after its start)")
        self._note_memory("ready, before the first caption")
        if self.moments[-1].blip_mapped:
            self.faults.append("BLIP's weight file is in memory before the first caption")
        async with Publisher(self.settings, results=True) as publisher:
            done = await self._good(publisher)
            self._neighbours()
            await self._bad(publisher, done[0] if done else None)
            if done:
                await self._offload(publisher, done[0].request.subject)

    async def _good(self, publisher: Publisher) -> list[Published]:
        """Publish the pictures, and return those that came back."""
        patience = self.plan.patience_seconds
        self.screen.section("2. The first captions bring BLIP in")
        self.screen.step(f"publishing {len(self.pictures)} pictures, for embedding and caption")
        async with self._live():
            requests = [picture.request() for picture in self.pictures]
            published = [one async for one in publisher.publish_many(requests)]
            outcomes = []
            for one in published:
                outcomes.append(await publisher.result(one, timeout_seconds=patience))
                self.screen.progress(len(outcomes), len(published))
        self.screen.step(f"{len(outcomes)} outcomes are here")
        self._note_memory("after the captions")
        for picture, one, outcome in zip(self.pictures, published, outcomes, strict=True):
            self._take(picture, one, outcome)

        self.screen.section("3. What came back")
        self.screen.models(self.plan)
        self._show_good()
        return [
            one for one, outcome in zip(published, outcomes, strict=True) if outcome.status == "ok"
        ]

    def _take(self, picture: Picture, published: Published, outcome: Outcome) -> None:
        place = (published.partition, published.offset)
        self.sent.append(Sent(what=picture.name, place=place))
        if outcome.status == "ok" and outcome.result is not None:
            self.results[picture.name] = outcome.result
        else:
            self.screen.say(f"{picture.name}: {outcome.code}: {outcome.message}", "red")

    def _show_good(self) -> None:
        truths = self._truths()
        self.screen.good(self.results, truths, judge=self.plan.tiny)
        if truths is None or not self.plan.tiny:
            return
        captions = {name: r.caption.text for name, r in self.results.items() if r.caption}
        right = sum(captions.get(name) == truth for name, truth in truths.items())
        self.screen.say(
            f"{right} of {len(truths)} captions are right to the letter. The other "
            f"{len(self.pictures) - len(truths)} pictures have no true caption (-): they are gray, "
            "and the tiny checkpoints know colours."
        )
        self.faults += caption_faults(captions, truths)

    def _truths(self) -> dict[str, str] | None:
        if not self.plan.ours:
            return None
        told = json.loads((self.plan.pictures / "captions.json").read_text(encoding="utf-8"))
        return {name: truth for name, truth in told.items() if truth is not None}

    def _neighbours(self) -> None:
        vectors = {n: r.embedding.vector() for n, r in self.results.items() if r.embedding}
        self.screen.section("4. Nearest neighbours, by the cosine of the embeddings")
        every = max(1, len(vectors) // _NEIGHBOURS_OF)
        names = list(vectors)[every // 2 :: every][:_NEIGHBOURS_OF]
        self.screen.neighbours({name: nearest(vectors, name, 3) for name in names})

    async def _bad(self, publisher: Publisher, done: Published | None) -> None:
        self.screen.section("5. What should not be sent, and what comes of it")
        bad = await publish_bad(self.plan, publisher, self.settings, self.other_secret)
        if done is not None:
            repeat = await publish_repeat(publisher, done.request)
            bad.append(repeat)
            await self.consumer.event(
                "the repeat is done",
                lambda event: event.place == repeat.place and event.outcome == "repeat",
                timeout_seconds=_OUTCOME_SECONDS,
            )
        self.sent += bad
        await self._until_complete()
        self.screen.bad(bad, self.outputs.seen)

    async def _offload(self, publisher: Publisher, uri: str) -> None:
        """Caption once more, then ask for embeddings alone until BLIP leaves."""
        self.screen.section("6. BLIP leaves when nobody wants a caption; embeddings go on")
        mark = len(self.consumer.events)
        await self._again(publisher, uri, (Task.EMBED, Task.CAPTION))
        self.screen.step(f"one more caption; from now on, for {BLIP_IDLE_SECONDS} s, none")
        gone = asyncio.create_task(
            self.consumer.event(
                "blip offloaded",
                lambda event: event.name == "blip offloaded",
                timeout_seconds=BLIP_IDLE_SECONDS + _OUTCOME_SECONDS,
                after=mark,
            )
        )
        milliseconds = []
        try:
            while not gone.done():
                began = time.monotonic()
                await self._again(publisher, uri, (Task.EMBED,))
                milliseconds.append((time.monotonic() - began) * 1000)
            self.screen.blip(await gone)
        finally:
            gone.cancel()
        self._note_memory("after BLIP left")
        self.screen.answered(milliseconds)
        self.screen.memory(self.moments)
        if self.moments[-1].blip_mapped:
            self.faults.append("BLIP's weight file is still in the consumer's memory")

    async def _again(self, publisher: Publisher, uri: str, tasks: tuple[Task, ...]) -> None:
        published = await publisher.publish(image_request(uri, tasks=tasks))
        place = (published.partition, published.offset)
        self.sent.append(Sent(what=f"{uri} again", place=place))
        await publisher.result(published, timeout_seconds=self.plan.patience_seconds)

    async def stop(self) -> None:
        """Stop the consumer as an orchestrator would, and count what every reader sees."""
        self.screen.section("7. SIGTERM")
        began = time.monotonic()
        code = await self.consumer.stop()
        self.screen.step(
            f"the consumer ended in {time.monotonic() - began:.1f} s, exit code {code}"
        )
        if code != 0:
            self.faults.append(f"the consumer ended with exit code {code}, not 0")
        await self._until_complete()
        await self.outputs.catch_up(_OUTCOME_SECONDS)
        self.faults += faults_of(self.sent, self.outputs.seen)
        if self.outputs.unverifiable_count:
            self.faults.append(f"{self.outputs.unverifiable_count} results do not verify")
        seen = self.outputs.seen.values()
        kinds = Counter(result.status for one in seen for result in one.results)
        dead_letters = sum(len(one.dead_letters) for one in seen)
        repeats = sum(one.repeat for one in self.sent)
        self.screen.step(
            f"{len(self.sent)} records were published; a read_committed reader sees "
            f"{kinds['ok']} ok results, {kinds['error']} error results, "
            f"{dead_letters} dead letters; {repeats} repeat has neither. "
            "One outcome each, no more and no fewer."
            if not self.faults
            else f"{len(self.sent)} records, {dict(kinds)} results, {dead_letters} dead letters"
        )

    async def _until_complete(self) -> None:
        """Wait for what must come; what did not shows in the faults."""
        try:
            await self.outputs.until(
                "all outcomes", lambda seen: is_complete(self.sent, seen), _OUTCOME_SECONDS
            )
        except FatalError as halt:
            self.screen.say(str(halt), "red")

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        """Show what BLIP does while the body runs."""

        async def show(after: int) -> None:
            async for event in self.consumer.follow(after):
                self.screen.blip(event)

        showing = asyncio.create_task(show(len(self.consumer.events)))
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait({showing})

    def _note_memory(self, when: str) -> None:
        pid, mark = self.consumer.pid, self.plan.blip_mark
        self.moments.append(
            Moment(when=when, resident_mib=resident_mib(pid), blip_mapped=is_mapped(pid, mark))
        )
