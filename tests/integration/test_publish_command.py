"""`publish` can tell what it did, does only the rest, and waits as long as the topic moves."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producer import ProducerSettings
from schemas import Request, Result, Source
from tests.answering import answering_consumer, with_caption
from tests.signed_results import error_result, signed, write

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").touch()
    return folder


async def publish(here: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "imagelane", "publish", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | here,
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def names(receipts: list[dict[str, Any]]) -> list[str]:
    return [Path(receipt["uri"]).name for receipt in receipts]


async def test_json_is_a_receipt_for_each(here: dict[str, str], pictures: Path) -> None:
    """With its id and its place, though nobody waits."""
    done = await publish(here, str(pictures), "--json")

    receipts = lines(done.stdout)
    assert done.returncode == 0
    assert names(receipts) == [f"{number}.png" for number in range(5)]
    assert [receipt["offset"] for receipt in receipts] == list(range(5))
    assert {receipt["status"] for receipt in receipts} == {"published"}
    assert len({receipt["id"] for receipt in receipts}) == 5


async def test_resume_publishes_what_is_not_done(
    here: dict[str, str], pictures: Path, tmp_path: Path
) -> None:
    """What failed and what is new; a line that a kill cut off is none."""
    settings, receipts = ProducerSettings.from_env(here), tmp_path / "receipts.jsonl"

    def fails_once(request: Request, source: Source) -> Result:
        if source.offset == 2:
            return error_result(request.id)
        return with_caption(request, source)

    async with answering_consumer(settings, fails_once):
        first = await publish(here, str(pictures), "--wait", "--resume", str(receipts))
        with receipts.open("ab") as file:
            file.write(b'{"id":"cut')
        (pictures / "new.png").touch()
        second = await publish(here, str(pictures), "--wait", "--resume", str(receipts))
        third = await publish(here, str(pictures), "--wait", "--resume", str(receipts))

    written = lines(receipts.read_text())
    assert [done.returncode for done in (first, second, third)] == [1, 0, 0]
    assert "published 5, done 4, failed 1" in first.stderr
    assert "published 2, done 2, failed 0, skipped 4" in second.stderr
    assert "published 0, done 0, failed 0, skipped 6" in third.stderr
    assert sorted(names([receipt for receipt in written if receipt["status"] == "ok"])) == [
        *(f"{number}.png" for number in range(5)),
        "new.png",
    ]


async def test_receipts_of_something_else_are_refused(
    here: dict[str, str], pictures: Path, tmp_path: Path
) -> None:
    """A file of results, say: everything would be published again."""
    (tmp_path / "receipts.jsonl").write_text('{"id":"a"}\n')

    done = await publish(here, str(pictures), "--resume", str(tmp_path / "receipts.jsonl"))

    assert (done.returncode, done.stdout) == (1, "")
    assert "receipts.jsonl:1: no receipt" in done.stderr


async def test_the_wait_goes_on_while_results_of_others_come(
    here: dict[str, str], pictures: Path
) -> None:
    """A place far back in a long queue is no failure: the consumer works."""
    settings = ProducerSettings.from_env(here)
    others, is_over = 0, False

    async def work_on_a_backlog() -> None:
        nonlocal others
        while not is_over:
            await write(settings, [signed(settings, error_result(f"other{others}"))])
            others += 1
            await asyncio.sleep(0.2)  # well within the patience of the command

    backlog = asyncio.create_task(work_on_a_backlog())
    publishing = asyncio.create_task(
        publish(here, str(pictures / "0.png"), "--wait", "--timeout", "3")
    )
    # Longer than the patience, by what the backlog has brought.
    while others < 40 and not publishing.done():  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    early = publishing.done()
    async with answering_consumer(settings):
        done = await publishing
    is_over = True
    await backlog

    assert not early, done.stdout
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["0.png", "ok"])
