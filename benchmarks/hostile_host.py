"""`python -m benchmarks.hostile_host`: what one hostile image host costs the references to others.

The consumer's own sources, retries and decoding, under a window of RECORDS_IN_FLIGHT with the
default settings. What follows is a GPU that takes `--rate` images a second at most, and 0.15 s
until the commit. Four good hosts are names of one server, the hostile one of another (or, with
`--wild`, has a name for each reference), each a process of its own.
References are taken in a random order, as fast as the window lets them in, without and with those
to the hostile host, in turn, in one run; counted are images of the good ones. `--pause` stops the
event loop instead, beside two hosts that are sound: none of their records may fail.
"""

import argparse
import asyncio
import io
import itertools
import random
import socket
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import product
from statistics import median
from subprocess import PIPE, Popen
from time import monotonic, sleep

from aiohttp.abc import ResolveResult
from PIL import Image

from consumer.errors import Failed
from consumer.images.byte_budget import ByteBudget, Reservation
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.loop_clock import LoopClock
from consumer.images.prepare import FetchAndDecode
from consumer.images.sealed import SealedImage
from consumer.images.sources import Sources
from consumer.images.sources.http import HttpSource
from consumer.pixels import Resize
from consumer.settings import ConsumerSettings
from schemas import ImageReference, Request, Task
from tests import hostile_http
from tests.hostile_http import Names, answer, http_source, serving

PROMISE = 0.9
COMMIT_SECONDS = 0.15
ONSET_SECONDS = 10  # in which the hostile host is found out
SLOW_SECONDS = 0.2  # in which the good ones answer where the loop is to pause
GOOD = [f"good-{number}.test" for number in range(4)]
KINDS = {
    "hang": hostile_http.silent,
    "trickle": hostile_http.trickle,
    "busy": answer(b"", "503 Busy", Retry_After="30"),
}
CLIP = Resize(height=224, width=224, resample=3, crop=True, shortest_edge=224)


async def _serve() -> None:
    picture = io.BytesIO()
    noise = Image.effect_noise((640, 480), 60).convert("RGB")
    noise.save(picture, "JPEG", quality=60)
    give = answer(picture.getvalue())

    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SLOW_SECONDS)
        await give(writer)

    does = {f"/{kind}": behaviour for kind, behaviour in KINDS.items()}
    async with serving(does | {"/good": give, "/slow": slowly}) as server:
        print(server.port, flush=True)
        await asyncio.sleep(3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is taken, and how fast it can be worked off."""

    port: int
    hostile_port: int
    kind: str
    share: float  # of the references, to the hostile host
    seconds: float
    rate: float  # images a second; 0: no bound
    window: int | None = None  # RECORDS_IN_FLIGHT; None: its default
    wild: bool = False  # each hostile reference under a name of its own
    pause_seconds: float = 0  # of the event loop, in the middle


@dataclass(frozen=True, slots=True)
class _Sealed:
    """The source within this process: a resolver of the benchmark's own does not reach another."""

    source: HttpSource[bytes]

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
        return SealedImage.of(await self.source.fetch(uri, max_bytes, reservation))


class _Everywhere(Names):
    """Every name leads to the one server."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.answers.setdefault(host, [["127.0.0.1"]])
        return await super().resolve(host, port, family)


async def _rates(load: Load) -> tuple[float, float]:
    """Return the images of good hosts a second: all the time, and after the onset."""
    settings = ConsumerSettings.model_validate(
        {
            "secret_api_key": "a secret of the benchmark alone, 32 bytes long",
            "allowed_hosts": f".test:{load.port},.test:{load.hostile_port}",
            "allowed_networks": "127.0.0.0/8",
        }
        | ({"records_in_flight": load.window} if load.window else {})
    )
    resolver, clock = _Everywhere(), LoopClock()
    async with (
        Decoder(DecodeLimits(), timeout_seconds=20) as decoder,
        http_source(settings, resolver, clock) as source,
    ):
        preparation = FetchAndDecode(
            sources=Sources(
                by_scheme={"http": _Sealed(source)}, max_bytes=settings.max_image_bytes, clock=clock
            ),
            decoder=decoder,
            resizes={Task.EMBED: CLIP},
            retry=settings.retry_policy,
            budget=ByteBudget(settings.bytes_in_flight),
        )
        done = await _consume(preparation, settings.records_in_flight, load)
    late = sum(count for second, count in done.items() if second >= ONSET_SECONDS)
    return done.total() / load.seconds, late / (load.seconds - ONSET_SECONDS)


async def _consume(preparation: FetchAndDecode, window: int, load: Load) -> Counter[int]:
    """Take references for some seconds; return the good images by the second they were done in."""
    start, free_at, chance = monotonic(), monotonic(), random.Random(20261124)
    room, tasks, done = asyncio.Semaphore(window), set[asyncio.Task[None]](), Counter[int]()
    lost, numbers = Counter[str](), itertools.count()
    if load.pause_seconds:
        asyncio.get_running_loop().call_later(load.seconds / 2, sleep, load.pause_seconds)

    async def process(uri: str) -> None:
        nonlocal free_at
        request = Request(id="a", image=ImageReference(uri=uri), tasks=(Task.EMBED,))
        try:
            async with preparation.prepare(request):
                if load.rate:
                    free_at = max(free_at, monotonic()) + 1 / load.rate
                    await asyncio.sleep(free_at - monotonic())
            done[int(monotonic() - start)] += 1
        except Failed as failed:
            if "hostile" not in uri:
                lost[failed.message.partition(": ")[2]] += 1
        await asyncio.sleep(COMMIT_SECONDS)
        room.release()

    with suppress(TimeoutError):  # the end
        async with asyncio.timeout(load.seconds):
            while True:
                await room.acquire()
                hostile = chance.random() < load.share
                name = f"{next(numbers)}.hostile.test" if load.wild else "hostile.test"
                place = f"{name}:{load.hostile_port}/{load.kind}"
                if not hostile:
                    good = f"{chance.choice(GOOD[:2])}:{load.port}/slow"
                    place = (
                        good if load.pause_seconds else f"{chance.choice(GOOD)}:{load.port}/good"
                    )
                task = asyncio.create_task(process(f"http://{place}"))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    counted = Counter(done)
    if lost:
        print(f"  {lost.total()} good ones failed for good: {dict(lost)}", flush=True)
        counted.clear()
    for task in tasks:
        task.cancel()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, Exception):
            raise error
    return counted


async def _compare(ports: tuple[int, int], options: argparse.Namespace) -> bool:
    held = True
    for kind, share in product(options.kinds, options.shares):
        load = Load(
            port=ports[0],
            hostile_port=ports[1],
            kind=kind,
            share=share,
            seconds=options.seconds,
            rate=options.rate,
            window=options.window,
            wild=options.wild,
        )
        ratios: list[tuple[float, float]] = []
        for _ in range(options.rounds):
            without = await _rates(replace(load, share=0))
            beside = await _rates(load)
            ratios.append((beside[0] / without[0], beside[1] / without[1]))
            print(f"  {without[0]:6.1f} images/s without, {beside[0]:6.1f} beside", flush=True)
        whole, late = (median(part) for part in zip(*ratios, strict=True))
        name = f"{kind}, a name for each" if options.wild else kind
        print(
            f"{name}, {share:.0%} of the references: ratio {whole:.2f}, {late:.2f} after the first "
            f"{ONSET_SECONDS} s (median of {options.rounds}; promised at least {PROMISE})",
            flush=True,
        )
        held &= whole >= PROMISE
    return held


async def _pause(ports: tuple[int, int], options: argparse.Namespace) -> bool:
    load = Load(
        port=ports[0],
        hostile_port=ports[1],
        kind="",
        share=0,
        seconds=options.seconds,
        rate=0,
        window=options.window,
        pause_seconds=options.pause,
    )
    whole, _ = await _rates(load)
    images = whole * load.seconds
    print(f"{options.pause:.0f} s of pause: {images:.0f} images of two hosts; 0 if any failed")
    return whole > 0


def main() -> int:
    """Measure, or be the server; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["trickle"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.5])
    parser.add_argument("--seconds", type=float, default=30, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--rate", type=float, default=100, help="images a second; 0: no bound")
    parser.add_argument("--window", type=int, help="RECORDS_IN_FLIGHT, if not its default")
    parser.add_argument("--wild", action="store_true", help="a host name for each hostile one")
    parser.add_argument("--pause", type=float, help="instead: stop the loop for so many seconds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve())
        return 0
    command = [sys.executable, "-m", "benchmarks.hostile_host", "--serve"]
    with ExitStack() as running:
        ports = []
        for _ in range(2):
            server = running.enter_context(Popen(command, stdout=PIPE, text=True))
            running.callback(server.terminate)
            assert server.stdout is not None
            ports.append(int(server.stdout.readline()))
        measure = _pause if options.pause else _compare
        return int(not asyncio.run(measure((ports[0], ports[1]), options)))


if __name__ == "__main__":
    sys.exit(main())
