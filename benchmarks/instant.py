"""Sources, decoders and models that answer at once, for benchmarks of what lies between them."""

import asyncio
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.outcome import ModelIdentity, Vector
from consumer.pixels import DecodedImage, Pixels, Resize
from schemas import Task

CLIP_SIZE: Final = Resize(height=224, width=224, resample=3, crop=True, shortest_edge=224)
RESIZES: Final = {Task.EMBED: CLIP_SIZE}
BLIP_SIZE: Final = Resize(height=384, width=384, resample=3, crop=False)
# Each decoding process imports this while it starts. The header of the image is not even read.
_DECODER_SITE: Final = """
try:
    import numpy as np
    from consumer.images.decoding import image
    from consumer.pixels import DecodedImage
except ImportError:
    pass
else:
    def at_once(data, targets, limits):
        pixels = {
            task: np.zeros((to.height, to.width, 3), np.uint8) for task, to in targets.items()
        }
        return DecodedImage(width=640, height=480, format="JPEG", pixels=pixels)

    image.decode = at_once
"""


class InstantModel:
    """Both embedders and the captioner in one; `embed` takes what `step` does."""

    identity = ModelIdentity(model="instant", revision="0")

    def __init__(
        self, *, numbers: int = 512, resize: Resize = CLIP_SIZE, step: Callable[[int], object] = int
    ) -> None:
        self.resize = resize
        self._vectors = np.full((1024, numbers), numbers**-0.5, np.float32)
        self._step = step

    def embed(self, images: Sequence[Pixels]) -> Vector:
        self._step(len(images))
        return self._vectors[: len(images)]

    def caption(self, images: Sequence[Pixels]) -> list[str]:
        self._step(len(images))
        return ["a caption of the usual length of eight words"] * len(images)

    def tokenize(self, text: str) -> tuple[int, ...]:
        return (len(text),)

    def embed_texts(self, texts: Sequence[tuple[int, ...]]) -> Vector:
        return self._vectors[: len(texts)]

    def load(self) -> None: ...
    def to_device(self) -> None: ...
    def offload(self) -> None: ...
    def unload(self) -> None: ...


class InstantDecoder:
    """In place of a `Decoder`: no process, the same pixels for each image."""

    def __init__(self, resizes: Mapping[Task, Resize]) -> None:
        self._pixels = {
            task: np.zeros((to.height, to.width, 3), np.uint8) for task, to in resizes.items()
        }

    async def decode(self, image: object, targets: Mapping[Task, Resize]) -> DecodedImage:
        pixels = {task: self._pixels[task] for task in targets}
        return DecodedImage(width=640, height=480, format="JPEG", pixels=pixels)


@contextmanager
def hollow_processes(folder: Path) -> Iterator[None]:
    """Let decoding processes that start in this block answer at once; pipe and cage are real."""
    (folder / "sitecustomize.py").write_text(_DECODER_SITE)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def real_decoder(workers: int) -> Decoder:
    """Return the consumer's own."""
    return Decoder(DecodeLimits(), timeout_seconds=60, workers=workers)


def jpeg(byte_length: int) -> bytes:
    """Return a photo of 640 x 480 with grain, followed by zeros up to `byte_length`."""
    grain = np.random.default_rng(1).integers(96, 160, (480, 640, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grain).save(buffer, "JPEG", quality=5)
    photo = buffer.getvalue()
    assert len(photo) <= byte_length, len(photo)
    return photo.ljust(byte_length, b"\0")


@contextmanager
def http_host(bodies: Mapping[str, bytes]) -> Iterator[int]:
    """Serve `bodies` by the last part of the path, from memory, in a process of its own.

    It is the S3 store as well: nothing checks a signature. The value is the port.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(dict(bodies), theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


class _Host(asyncio.Protocol):
    def __init__(self, answers: Mapping[bytes, bytes]) -> None:
        self._answers = answers
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            name = head.split(b" ", 2)[1].rpartition(b"/")[2]
            self._transport.write(self._answers[name])


def _serve(bodies: dict[str, bytes], told: Connection) -> None:
    answers = {
        name.encode(): b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body
        for name, body in bodies.items()
    }

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Host(answers), "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    os.environ.clear()
    asyncio.run(serve())
