"""How many images the consumer's own process can carry, whatever decodes and computes beside it.

`python -m benchmarks.ceiling`: partition worker, admission, engine, byte budget and writer are the
real ones; the broker is a list, and what is fetched, decoded and computed answers at once. Each row
adds one part, so the difference of two is what that part costs:

    record   admission, worker, results as JSON, signed; images and models are constants
    engine   + the engine's queue, its thread and the batch
    fetch    + the source, of files on the disk's cache or a host on this machine
    pipe     + the decoding processes in their cage, which answer without looking at the image

A run ends with its last result. CPU is that of this process, all threads, which a busy machine
changes little; images a second are by the clock. All rows in turn, round by round, in one run.
"""

import argparse
import asyncio
import base64
import json
import logging
import os
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from benchmarks.carriage import carry, fetch_and_decode, opened_engine, records_of, settings_for
from benchmarks.instant import (
    RESIZES,
    InstantDecoder,
    InstantModel,
    hollow_processes,
    http_host,
    jpeg,
    real_decoder,
)
from consumer.image_sources import open_sources
from consumer.inference.engine import Engine
from consumer.outcome import ImageFacts, Inference
from consumer.record.process import Prepared
from consumer.runtime import limits
from schemas import Request

SIZES: Final = {"66 KB": 66_000, "440 KB": 440_000}
DATA_BYTES: Final = 6_000  # a URI has 8,192 characters at most
STAGES: Final = ("record", "engine", "fetch", "pipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row of the table: where the images come from, and how far they go."""

    scheme: str
    size: str
    stage: str
    uri: str


@dataclass(slots=True, kw_only=True)
class Measured:
    """One value a round: images a second, and CPU microseconds an image."""

    rates: list[float] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)

    def add(self, count: int, wall_seconds: float, cpu_seconds: float) -> None:
        self.rates.append(count / wall_seconds)
        self.microseconds.append(cpu_seconds / count * 1e6)


class ConstantPreparation:
    """In place of source and decoder."""

    def __init__(self) -> None:
        facts = ImageFacts(
            sha256="0" * 64, width=640, height=480, format="JPEG", fetch_ms=1.0, decode_ms=1.0
        )
        image = InstantDecoder(RESIZES)
        self._prepared = Prepared(image=facts, pixels=image._pixels)

    @asynccontextmanager
    async def prepare(self, request: Request) -> AsyncIterator[Prepared]:
        yield self._prepared


class ConstantEngine(Engine):
    """An engine that asks no thread."""

    async def infer(self, pixels: object, *, urgent: bool = False) -> Inference:
        return Inference(
            vector=self._embedder.embed([None])[0],
            caption=None,
            embed_ms=1.0,
            caption_ms=None,
        )


def cases(folder: Path, port: int) -> list[Case]:
    """Return the rows; the images of `file:` are written."""
    plain = [Case(scheme="-", size="-", stage=stage, uri="file:///none") for stage in STAGES[:2]]
    data = base64.b64encode(jpeg(DATA_BYTES)).decode()
    uris = {("data", f"{DATA_BYTES // 1000} KB"): f"data:image/jpeg;base64,{data}"}
    for size, byte_length in SIZES.items():
        name = f"{byte_length}.jpg"
        (folder / name).write_bytes(jpeg(byte_length))
        uris["file", size] = f"file://{folder}/{name}"
        uris["http", size] = f"http://127.0.0.1:{port}/{name}"
        uris["s3", size] = f"s3://photos/{name}"
    return plain + [
        Case(scheme=scheme, size=size, stage=stage, uri=uri)
        for (scheme, size), uri in sorted(uris.items())
        for stage in STAGES[2:]
    ]


async def measure(
    folder: Path, port: int, count: int, rounds: int, only: str | None
) -> dict[Case, Measured]:
    """Run every row `rounds` times, in turn, after a round that does not count."""
    settings = settings_for(folder, port)
    rows = [row for row in cases(folder, port) if only in (None, row.scheme) or row.scheme == "-"]
    measured = {row: Measured() for row in rows}
    async with AsyncExitStack() as opened:
        enter = opened.enter_async_context
        sources = await enter(open_sources(settings))
        await sources.ready()
        with hollow_processes(folder):
            pipe = await enter(real_decoder(os.cpu_count() or 1))
        model = InstantModel()
        engine = await enter(opened_engine(Engine, model))
        constant = await enter(opened_engine(ConstantEngine, model))
        for number in range(rounds + 1):
            for row in rows:
                decoder = pipe if row.stage == "pipe" else InstantDecoder(RESIZES)
                real = fetch_and_decode(settings, sources, decoder)
                preparation = real if row.stage in STAGES[2:] else ConstantPreparation()
                images = count if number else count // 4
                wall, cpu = await carry(
                    settings,
                    records_of(settings, row.uri, images),
                    preparation,
                    constant if row.stage == "record" else engine,
                )
                if number:
                    measured[row].add(images, wall, cpu)
    return measured


def report(measured: dict[Case, Measured], path: Path | None) -> None:
    """Print the table; write it as JSON as well, if a path is given."""
    base = next(iter(measured.values()))
    print(f"{'':<7}{'':<8}{'up to':<8}{'CPU µs an image':>22}{'images/s':>10}{'of record':>11}")
    rows = []
    for case, values in measured.items():
        cpu, rate = statistics.median(values.microseconds), statistics.median(values.rates)
        ratio = statistics.median(
            mine / whole for mine, whole in zip(values.rates, base.rates, strict=True)
        )
        spread = f"({min(values.microseconds):.0f} to {max(values.microseconds):.0f})"
        print(
            f"{case.scheme:<7}{case.size:<8}{case.stage:<8}{cpu:>8.0f} {spread:>13}"
            f"{rate:>10.0f}{ratio:>11.3f}"
        )
        rows.append(
            {
                "scheme": case.scheme,
                "size": case.size,
                "up_to": case.stage,
                "cpu_us": values.microseconds,
                "images_per_second": values.rates,
                "ratio": ratio,
            }
        )
    if path:
        path.write_text(json.dumps(rows, indent=1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ceiling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=2000, help="images a run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each row (%(default)s)")
    parser.add_argument("--only", choices=("data", "file", "http", "s3"), help="one scheme")
    parser.add_argument("--json", type=Path, help="write every round's values to this file")
    options = parser.parse_args()
    limits.tune_memory()  # as the consumer does
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = {f"{byte_length}.jpg": jpeg(byte_length) for byte_length in SIZES.values()}
        with http_host(bodies) as port:
            measured = asyncio.run(
                measure(folder, port, options.count, options.rounds, options.only)
            )
    report(measured, options.json)
    print(f"load of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
