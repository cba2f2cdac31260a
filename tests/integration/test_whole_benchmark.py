"""The benchmark of the whole runs, at a small size."""

from pathlib import Path

from benchmarks import whole
from tests.consumer_process import MODELS


async def test_whole_is_measured_against_its_bound(tmp_path: Path) -> None:
    """A rate and a ratio a round, and how long single requests take."""
    figures = await whole.measure(tmp_path, MODELS / "tiny-clip", "float32", count=20, rounds=2)

    assert len(figures.ratios) == len(figures.images_per_second) == 2
    assert min(figures.ratios) > 0
    assert figures.half_load_ms[0] > 0
