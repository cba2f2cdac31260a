"""The benchmarks of the models run, at a small size."""

import json
from pathlib import Path

import pytest

from benchmarks import caption, dtypes, free_memory, gpu
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import load_clip
from consumer.inference.models.device import choose_device


def test_captions_are_measured_for_each_batch(blip_folder: Path) -> None:
    """A row for each, with both sides' rates."""
    rows = caption.measure(blip_folder, rounds=1, tokens=3)

    assert {row.batch for row in rows} == set(caption.BATCHES)
    assert all(row.ratio > 0 for row in rows)


def test_dtypes_are_measured_for_each_batch(clip_folder: Path) -> None:
    """A pair of rates for each, and a cosine near 1."""
    figures = dtypes.measure(clip_folder, rounds=1)

    assert set(figures.images_per_second) == set(dtypes.BATCHES)
    assert 0.99 < figures.least_cosine <= 1.0001


def test_leaving_is_measured_with_its_parts(blip_folder: Path) -> None:
    """A value a round of each."""
    seconds = free_memory.measure(blip_folder, rounds=2)

    assert {len(values) for values in seconds.values()} == {2}
    assert min(seconds["leave"]) > 0


async def test_card_is_measured_bare_and_through_the_engine(clip_folder: Path) -> None:
    """Both rates a round, and the batches that they had; here on the CPU."""
    device = choose_device("cpu", "float32")
    clip = load_clip(inspect(str(clip_folder), "main", "clip"), device)
    row = await gpu.measure("small", clip, device, count=64, rounds=2)

    for side in (row.engine, row.whole):
        assert len(row.ratios(side)) == 2
        assert min(row.ratios(side)) > 0
    assert row.best_batch in gpu.BATCHES
    assert row.chosen_batch == 32


def test_card_is_tested_measured_and_reported_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What runs on the day on which there is a card; here on the CPU, whatever its ratios are."""
    gpu.main(["--small", "--count", "32", "--rounds", "1", "--json", str(tmp_path / "figures")])

    head, *table = capsys.readouterr().out.splitlines()
    assert "skipped" in head or "passed" in head
    assert sum("ViT-" in line for line in table) == 2
    assert {row["model"] for row in json.loads((tmp_path / "figures").read_bytes())["rows"]} == {
        "ViT-B/32",
        "ViT-L/14",
    }
