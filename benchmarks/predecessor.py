"""The design that imagelane replaces, beside imagelane: a model server that is sent images by HTTP.

`python -m benchmarks.predecessor`: the server takes an image a request, and answers with the vector
that transformers' processor and model make of it, each request in a thread, as such servers do; the
client keeps 16 requests under way. imagelane is what a user runs: the embedded broker, a consumer
process, `file:` references. Both have the tiny checkpoint, or ViT-B/32 with `--full`, in float32 on
the CPU, and photos of 640 x 480. The sides take turns; progress is counted by vectors.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
from aiohttp import web
from PIL import Image

from benchmarks.checkpoints import VIT_B_32, save_random_clip
from benchmarks.instant import jpeg
from benchmarks.served import served
from benchmarks.whole import p50_p99_ms, requests_of, seconds_until_done
from tests.consumer_process import MODELS

AT_ONCE: Final = 16
LONE_REQUESTS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Images a second of both, a value a round; a lone request's median and 99th percentile."""

    server_images_per_second: list[float]
    consumer_images_per_second: list[float]
    server_lone_ms: tuple[float, float]
    consumer_lone_ms: tuple[float, float]

    @property
    def ratios(self) -> list[float]:
        """The consumer's rate by the server's, a value a round, ascending."""
        pairs = zip(self.consumer_images_per_second, self.server_images_per_second, strict=True)
        return sorted(ours / theirs for ours, theirs in pairs)


async def measure(folder: Path, checkpoint: Path, count: int, rounds: int) -> Figures:
    """Return the figures of a checkpoint."""
    photo = folder / "photo.jpg"
    photo.write_bytes(jpeg(66_000))
    requests, data = requests_of(photo), photo.read_bytes()
    theirs, ours = list[float](), list[float]()
    with model_server(checkpoint) as url:
        async with (
            aiohttp.ClientSession() as session,
            served(folder, CLIP_MODEL=str(checkpoint), DTYPE="float32") as (client, topics),
        ):
            await embed_by_http(session, url, data, AT_ONCE)
            await seconds_until_done(client, topics.ingest, requests("warm", 64))
            for number in range(rounds):
                theirs.append(count / await embed_by_http(session, url, data, count))
                batch = requests(f"round{number}-", count)
                ours.append(count / await seconds_until_done(client, topics.ingest, batch))
            lone_theirs = [await embed_by_http(session, url, data, 1) for _ in range(LONE_REQUESTS)]
            lone_ours = [
                await seconds_until_done(client, topics.ingest, [request])
                for request in requests("lone", LONE_REQUESTS)
            ]
    return Figures(
        server_images_per_second=theirs,
        consumer_images_per_second=ours,
        server_lone_ms=p50_p99_ms(lone_theirs),
        consumer_lone_ms=p50_p99_ms(lone_ours),
    )


async def embed_by_http(session: aiohttp.ClientSession, url: str, data: bytes, count: int) -> float:
    """Return the seconds until the server has embedded the image `count` times."""
    left = iter(range(count))
    started = time.perf_counter()

    async def send() -> None:
        for _ in left:
            async with session.post(url, data=data) as response:
                response.raise_for_status()
                vector = (await response.json())["embedding"]
                if not np.isclose(np.linalg.norm(vector), 1, atol=1e-3):
                    raise RuntimeError("not a unit vector")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(send())
    return time.perf_counter() - started


@contextmanager
def model_server(checkpoint: Path) -> Iterator[str]:
    """Run the server in a process of its own; the value is where images are sent."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(checkpoint, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/embed"
    finally:
        process.kill()
        process.join()


def _serve(checkpoint: Path, told: Connection) -> None:
    import torch
    from transformers import AutoImageProcessor, CLIPModel

    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = CLIPModel.from_pretrained(checkpoint).eval()

    def embed(data: bytes) -> list[float]:
        image = Image.open(BytesIO(data)).convert("RGB")
        inputs = processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            vectors = model.get_image_features(**inputs).pooler_output
        vector: list[float] = torch.nn.functional.normalize(vectors)[0].tolist()
        return vector

    async def handle(request: web.Request) -> web.Response:
        data = await request.read()
        vector = await asyncio.get_running_loop().run_in_executor(None, embed, data)
        return web.json_response({"embedding": vector})

    async def serve() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/embed", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def report(figures: Figures) -> None:
    """Print the medians and their spread."""
    print("| design | images/s | a lone request, p50 / p99 |")
    print("| --- | --- | --- |")
    for name, rates, lone in (
        ("model server", figures.server_images_per_second, figures.server_lone_ms),
        ("imagelane", figures.consumer_images_per_second, figures.consumer_lone_ms),
    ):
        print(f"| {name} | {statistics.median(rates):.1f} | {lone[0]:.0f} / {lone[1]:.0f} ms |")
    ratios = figures.ratios
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predecessor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=500, help="images of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (%(default)s)")
    parser.add_argument("--full", action="store_true", help="ViT-B/32 with random weights")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagelane-predecessor-") as name:
        folder, checkpoint = Path(name), MODELS / "tiny-clip"
        if options.full:
            checkpoint = folder / "clip"
            save_random_clip(checkpoint, VIT_B_32)
        figures = asyncio.run(measure(folder, checkpoint, options.count, options.rounds))
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=2) + "\n")


if __name__ == "__main__":
    main()
