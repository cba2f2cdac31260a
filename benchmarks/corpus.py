"""`python -m benchmarks.corpus`: the memory of a consumer that is sent the worst images there are.

A real consumer (the tiny checkpoints, Apache Kafka in a container) gets every bomb and broken file
of the tests' corpus many times over, between large noisy pictures that fill the byte budget. What
it takes is looked at a hundred times a second: resident memory of its own process and of those that
fetch, and the sealed images that any of them holds. Above what it takes when idle it may take the
budget and 10 %. The processes that decode have a limit of their own, which is shown too. Exit code
1 if it takes more.
"""

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from consumer.settings import ConsumerSettings
from tests.consumer_process import Running, consumer_process, environment
from tests.containers import ApacheKafka
from tests.corpus import encoded, samples
from tests.faults.scenario import SECRET, Scenario, scenario
from tests.processes import child_fetchers, child_workers

MIB = 2**20
ALLOWED_RATIO = 1.1
NOISE_SIDE = 2800  # incompressible: a PNG of 22 MiB
LARGE = 8
_FIELDS = ("VmRSS", "VmHWM")
_LOOK_SECONDS = 0.01


def memory_bytes(pid: int) -> dict[str, int]:
    """Return the resident memory of a process, now and at its peak; 0 of one that has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields.get(name, "0").split()[0]) * 1024 for name in _FIELDS}


def sealed_bytes(pids: Iterable[int]) -> int:
    """Return the bytes of the sealed images that these processes hold, each image once."""
    sizes: dict[int, int] = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if "memfd:image" in str(entry.readlink()):
                    status = entry.stat()
                    sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def held_bytes(pid: int) -> int:
    """Return what the consumer `pid` takes, the processes that decode left out."""
    pids = [pid, *child_fetchers(pid)]
    return sum(memory_bytes(each)["VmRSS"] for each in pids) + sealed_bytes(pids)


def make_corpus(folder: Path) -> list[str]:
    """Write every sample, and large pictures; return their URIs."""
    folder.mkdir()
    for number, sample in enumerate(samples()):
        (folder / f"{number}").write_bytes(sample.data)
    for number in range(LARGE):
        side = NOISE_SIDE + number
        noise = Image.frombytes("RGB", (side, side), os.urandom(side * side * 3))
        (folder / f"noise{number}").write_bytes(encoded(noise, "PNG", compress_level=0))
    return [path.as_uri() for path in sorted(folder.iterdir())]


async def measure(run: Scenario, consumer: Running, uris: list[str], copies: int) -> float:
    """Return the peak above idle, in bytes, while all of it is worked off."""
    pid = consumer.process.pid
    await _work_off(run, consumer, "warm", [uri for uri in uris if "noise" in uri])
    idle, peak = held_bytes(pid), 0
    decoders = 0
    working = asyncio.create_task(_work_off(run, consumer, "all", uris * copies))
    while not working.done():
        peak = max(peak, held_bytes(pid))
        for child in child_workers(pid):
            try:
                decoders = max(decoders, memory_bytes(child)["VmHWM"])
            except OSError:  # it was replaced
                continue
        await asyncio.wait({working}, timeout=_LOOK_SECONDS)
    await working
    print(f"idle {idle / MIB:.0f} MiB, peak {peak / MIB:.0f}, of a decoder {decoders / MIB:.0f}")
    return peak - idle


async def _work_off(run: Scenario, consumer: Running, tag: str, uris: list[str]) -> None:
    random.Random(tag).shuffle(uris)
    for number, uri in enumerate(uris):
        await run.publish([f"{tag}.{number}"], uri)
    while await run.lag():
        assert consumer.process.poll() is None, consumer.log.read_text()[-2000:]
        await asyncio.sleep(0.5)


async def _compare(kafka: ApacheKafka, budget_bytes: int, copies: int) -> bool:
    with TemporaryDirectory() as temporary:
        folder, images = Path(temporary), Path(temporary, "images")
        uris = make_corpus(images)
        async with scenario(kafka, folder) as run:
            settings = environment(
                kafka.bootstrap,
                run.topics,
                SECRET,
                FILE_ROOTS=str(images),
                BYTES_IN_FLIGHT=str(budget_bytes),
                DECODE_SECONDS="5",
            )
            with consumer_process(settings, folder / "log") as consumer:
                consumer.wait_for("ready")
                above = await measure(run, consumer, uris, copies)
    print(
        f"{copies} x {len(uris)} images: {above / MIB:.0f} MiB above idle with a budget of "
        f"{budget_bytes / MIB:.0f}: {above / budget_bytes:.2f} of it; at most {ALLOWED_RATIO}"
    )
    return above <= ALLOWED_RATIO * budget_bytes


def main() -> int:
    """Measure, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description="peak memory under the whole corpus")
    default = ConsumerSettings.model_fields["bytes_in_flight"].default
    parser.add_argument("--budget", type=int, default=default // MIB, help="MiB; the default's")
    parser.add_argument("--copies", type=int, default=5, help="of each image")
    options = parser.parse_args()
    with ApacheKafka.running() as kafka:
        kept = asyncio.run(_compare(kafka, options.budget * MIB, options.copies))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
