"""Results written to files: lines go on where they stopped, tables are whole or absent."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from producer import ProducerSettings
from tests.signed_results import SIGNED_AT, error_result, ok_result, signed, write

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imagelane", "results", *arguments]


def environment(here: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | here


async def results(
    here: dict[str, str], *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(
        subprocess.run,
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env=environment(here),
    )
    assert done.returncode == code, done.stderr
    return done


@contextmanager
def following(path: Path, here: dict[str, str]) -> Iterator[None]:
    """Write what comes to a file, and be killed at the end of the body."""
    arguments = command("--to", str(path), "--follow")
    with subprocess.Popen(arguments, env=environment(here), cwd="/") as process:
        try:
            yield
        finally:
            process.kill()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.01)


def has_changed(path: Path, before: bytes) -> bool:
    return content(path) != before


def names(folder: Path) -> list[str]:
    return [child.name for child in folder.iterdir()]


def content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_lines_go_on_where_they_stopped(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path
) -> None:
    """A copy, and an old result behind a newer one, are known over the runs."""
    path = tmp_path / "results.jsonl"
    first, second = signed(settings, ok_result("a")), signed(settings, error_result("b"))
    newer = signed(settings, ok_result("b"), SIGNED_AT + 9)
    await write(settings, [first, second])
    one = await results(here, "--to", str(path))
    await write(settings, [first, newer, second])
    two = await results(here, "--to", str(path))
    three = await results(here, "--to", str(path))

    assert [(line["id"], line["status"], line["at"]) for line in lines(path)] == [
        ("a", "ok", [0, 0]),
        ("b", "error", [0, 1]),
        ("b", "ok", [0, 3]),
    ]
    assert [line["signed_at"] - SIGNED_AT for line in lines(path)] == [0, 0, 9]
    assert [done.stderr.split()[0] for done in (one, two, three)] == ["2", "1", "0"]


async def test_lines_that_a_kill_left_behind_are_read_again(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path
) -> None:
    """What no place knows of is cut off, half a line too."""
    path = tmp_path / "results.jsonl"
    await write(settings, [signed(settings, ok_result("a"))])
    await results(here, "--to", str(path))
    with path.open("ab") as file:
        file.write(b'{"id":"b"}\n{"id"')
    await write(settings, [signed(settings, ok_result("b"))])

    await results(here, "--to", str(path))

    assert [line["id"] for line in lines(path)] == ["a", "b"]


async def test_a_run_that_is_killed_again_and_again_misses_none(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path
) -> None:
    """And writes none twice: killed as soon as it has written something more."""
    path, count = tmp_path / "results.jsonl", 900
    records = [signed(settings, ok_result(f"id{number}")) for number in range(count)]
    place = path.with_name("results.jsonl.place")
    for third in range(3):
        await write(settings, records[third * 300 : (third + 1) * 300])
        before = content(place)
        with following(path, here):
            await until(partial(has_changed, place, before))

    await results(here, "--to", str(path))

    assert [line["id"] for line in lines(path)] == [f"id{number}" for number in range(count)]


async def test_two_runs_do_not_write_one_file(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path
) -> None:
    """The second says so."""
    path = tmp_path / "results.jsonl"
    await write(settings, [signed(settings, ok_result("a"))])
    with following(path, here):
        await until(lambda: content(path.with_name("results.jsonl.place")) != b"")
        done = await results(here, "--to", str(path), code=1)

    assert "another run writes it" in done.stderr


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"positions":{},"topic":"t"}'])
async def test_a_damaged_place_is_said(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path, content: bytes
) -> None:
    """With the files that a new start needs gone."""
    path = tmp_path / "results.jsonl"
    path.with_name("results.jsonl.place").write_bytes(content)

    done = await results(here, "--to", str(path), code=1)

    assert f"{path}.place is damaged; remove it together with {path}" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_table_has_the_results_that_hold(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path
) -> None:
    """One row an id: the one that was signed later."""
    path = tmp_path / "results.parquet"
    await write(
        settings,
        [
            signed(settings, error_result("a")),
            signed(settings, ok_result("a"), SIGNED_AT + 1),
            signed(settings, ok_result("b")),
            signed(settings, error_result("b"), SIGNED_AT + 1),
            signed(settings, error_result("a")),
        ],
    )

    await results(here, "--to", str(path))

    rows = {row["id"]: row for row in pq.read_table(path).to_pylist()}
    assert {id: row["status"] for id, row in rows.items()} == {"a": "ok", "b": "error"}
    assert rows["a"]["embedding"] == pytest.approx([0.6, 0.8])
    assert (rows["a"]["uri"], rows["a"]["caption"]) == ("s3://b/a", "a circle")
    assert (rows["a"]["metadata"], rows["b"]["error_code"]) == ('{"album":7}', "not_found")
    assert names(tmp_path) == ["results.parquet"]


async def test_vectors_are_those_of_the_newest_model(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path
) -> None:
    """Vectors of two cannot be compared; how many are left out is said."""
    path = tmp_path / "pictures.npz"
    await write(
        settings,
        [
            signed(settings, ok_result("old", (1.0, 0.0, 0.0), model="first")),
            signed(settings, ok_result("a"), SIGNED_AT + 1),
            signed(settings, ok_result("b", (0.8, 0.6)), SIGNED_AT + 2),
            signed(settings, error_result("c"), SIGNED_AT + 3),
        ],
    )

    done = await results(here, "--to", str(path), "--status", "ok")

    found = np.load(path)
    assert found["ids"].tolist() == ["a", "b"]
    assert found["uris"].tolist() == ["s3://b/a", "s3://b/b"]
    assert found["vectors"].dtype == np.float32
    assert found["vectors"].tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([0.8, 0.6])]
    assert (str(found["model"]), str(found["revision"])) == ("m", "1")
    assert "1 of other models left out" in done.stderr


async def test_only_what_is_asked_for_is_shown(
    settings: ProducerSettings, here: dict[str, str]
) -> None:
    """By time of signing and by status."""
    await write(
        settings,
        [
            signed(settings, ok_result("old"), SIGNED_AT - 1),
            signed(settings, ok_result("new")),
            signed(settings, error_result("failed")),
        ],
    )

    done = await results(here, "--json", "--since", str(SIGNED_AT), "--status", "ok")

    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["new"]


@pytest.mark.parametrize("name", ["results.parquet", "pictures.npz"])
async def test_a_table_that_cannot_be_written_leaves_nothing(
    settings: ProducerSettings, here: dict[str, str], tmp_path: Path, name: str
) -> None:
    """A folder stands where the file belongs."""
    (tmp_path / name).mkdir()
    await write(settings, [signed(settings, ok_result("a"))])

    done = await results(here, "--to", str(tmp_path / name), code=1)

    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == [name]
