"""The consumer as users run it, on the tiny checkpoints: killed and stopped at random times."""

import asyncio
import signal
from pathlib import Path

import pytest

from schemas import Task
from tests.consumer_process import PICTURES
from tests.containers import ApacheKafka
from tests.faults.scenario import SEED, Scenario, full_only, names, scenario

pytestmark = [pytest.mark.integration, pytest.mark.docker, full_only]

KILLS, RECORDS = 10, 1_700
# Without a static name: a dead member's partitions wait for its session to end.
SETTINGS = {
    "GROUP_INSTANCE_ID": "",
    "FILE_ROOTS": str(PICTURES),
    "RECORDS_IN_FLIGHT": "64",
    "TORCH_THREADS": "1",
}


@pytest.mark.parametrize("part", range(3))
async def test_two_members_with_real_models_are_killed(
    kafka: ApacheKafka, tmp_path: Path, part: int
) -> None:
    """SIGKILL and SIGTERM at random times, while images are fetched, embedded and captioned."""
    async with scenario(kafka, tmp_path, partitions=2) as run:
        run.chance.seed(SEED + part)
        await _publish(run, names(RECORDS))
        members = [run.start(member=name, module="consumer", **SETTINGS) for name in "ab"]
        for number in range(KILLS):
            before = await run.lag()
            while before and await run.lag() == before:  # noqa: ASYNC110 - it asks Kafka
                await asyncio.sleep(0.05)
            await asyncio.sleep(run.chance.expovariate(1))
            victim = run.chance.randrange(len(members))
            how = run.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            await asyncio.to_thread(members[victim].end, how)
            name = f"{'ab'[victim]}{number}"
            members[victim] = run.start(member=name, module="consumer", **SETTINGS)
            if not await run.lag():
                await _publish(run, [f"more{number}.{name}" for name in names(RECORDS // KILLS)])
        ledger = await run.finish(*members, seconds=300, module="consumer", **SETTINGS)
        ledger.check()
        assert not ledger.letters


async def _publish(run: Scenario, ids: list[str]) -> None:
    """Publish ids with pictures in turn; of every third picture a caption is asked for too."""
    kinds = {".jpg", ".png", ".webp", ".gif", ".bmp"}
    pictures = sorted(path for path in PICTURES.iterdir() if path.suffix in kinds)
    for number, picture in enumerate(pictures):
        tasks = (Task.EMBED,) if number % 3 else (Task.EMBED, Task.CAPTION)
        await run.publish(ids[number :: len(pictures)], picture.as_uri(), tasks=tasks)
