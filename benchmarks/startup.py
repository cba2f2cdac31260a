"""From the start of `python -m consumer` to the first result that a reader sees.

`python -m benchmarks.startup`: on the embedded broker, with the tiny checkpoints; one request, for
embedding and caption, waits in the topic already. The clock starts before the process does and
stops when a read_committed reader has the signed result; on the way are the lines of the
consumer's log. Exit code 1 if a median is over its promise. `--demo` times `make demo` once.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from examples.demo.outputs import open_outputs
from examples.demo.plan import Plan
from examples.processes import ROOT, Consumer, running_broker, running_consumer, while_running
from producer import ProducerSettings, Publisher
from producer.topics import ensure_topics, topic_plans

PROMISED_SECONDS = {"ready": 3.5, "first result": 8.0}
PROMISED_DEMO_SECONDS = 60.0
SECRET = "a secret of the benchmark alone, 32 bytes long"
MILESTONES = (
    "topics",
    "models",
    "models tried",
    "ready",
    "blip loading",
    "blip loaded",
    "blip on device",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds from the start of the process to the first result, and to what came before it."""

    first_result: float
    milestones: dict[str, float]


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="from process start to the first result")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--demo", action="store_true", help="time `make demo` once as well")
    parser.add_argument(
        "--models", type=Path, help="a folder with other checkpoints, clip and blip"
    )
    arguments = parser.parse_args()
    starts = asyncio.run(measure(arguments.runs, arguments.models))
    held = report(starts)
    if arguments.demo:
        held &= time_demo()
    return int(not held)


async def measure(runs: int, models: Path | None) -> list[Start]:
    """Start a consumer, `runs` times, each with topics and a group of its own."""
    with tempfile.TemporaryDirectory(prefix="imagelane-startup-") as name:
        folder = Path(name)
        async with running_broker(folder / "broker") as broker:
            print(f"{'run':4}" + "".join(f"{name:>16}" for name in (*MILESTONES, "first result")))
            starts = []
            for number in range(1, runs + 1):
                plan = Plan.from_env({"BOOTSTRAP_SERVERS": broker.address}, f"run-{number}")
                if models is not None:
                    clip, blip = str(models / "clip"), str(models / "blip")
                    plan = replace(plan, clip=clip, blip=blip)
                starts.append(await first_result(plan, broker.address, folder))
                times = (*starts[-1].milestones.values(), starts[-1].first_result)
                print(f"{number:<4}" + "".join(f"{seconds:14.2f} s" for seconds in times))
            return starts


async def first_result(plan: Plan, bootstrap: str, folder: Path) -> Start:
    """Publish one request, start a consumer, and wait for the result."""
    wire = plan.wire(bootstrap, SECRET)
    settings = ProducerSettings.from_env(wire)
    await ensure_topics(settings, topic_plans(settings, partitions=1, replication=None))
    async with Publisher(settings) as publisher:
        await publisher.publish(plan.good()[0].request())
    environment = {**os.environ, **wire, **plan.consumer()}
    async with open_outputs(settings) as outputs:
        start = time.monotonic()
        async with running_consumer(environment, folder) as consumer:
            await while_running(
                consumer, outputs.until("the first result", bool, timeout_seconds=120)
            )
            seconds = time.monotonic() - start
            (seen,) = outputs.seen.values()
            assert seen.results[0].status == "ok", seen.results[0].error
            return Start(first_result=seconds, milestones=milestones(consumer, start))


def milestones(consumer: Consumer, start: float) -> dict[str, float]:
    """Return the seconds from `start` to what the consumer's log said on the way."""
    return {event.name: event.at - start for event in consumer.events if event.name in MILESTONES}


def report(starts: list[Start]) -> bool:
    """Print the spreads and the promises; return whether all hold."""
    held = True
    for name, promised in PROMISED_SECONDS.items():
        seconds = [
            {**start.milestones, "first result": start.first_result}[name] for start in starts
        ]
        median = statistics.median(seconds)
        held &= median <= promised
        print(
            f"{name}: median {median:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s; "
            f"promised at most {promised:g} s; ratio {median / promised:.2f}"
        )
    return held


def time_demo() -> bool:
    """Run `make demo`, print how long it took; return whether it went well and in time."""
    start = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k != "BOOTSTRAP_SERVERS"}
    demo = subprocess.run(
        ["make", "demo", "MODELS=", "PICTURES="],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.monotonic() - start
    print(
        f"make demo: {seconds:.1f} s, exit code {demo.returncode}; promised at most "
        f"{PROMISED_DEMO_SECONDS:g} s; ratio {seconds / PROMISED_DEMO_SECONDS:.2f}"
    )
    return demo.returncode == 0 and seconds <= PROMISED_DEMO_SECONDS


if __name__ == "__main__":
    sys.exit(main())
