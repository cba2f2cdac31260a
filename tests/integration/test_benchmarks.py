"""The benchmarks of a whole consumer run, at a small size."""

from pathlib import Path

from benchmarks import predecessor, scale, served_captions, whole
from tests.consumer_process import MODELS


async def test_whole_is_measured_against_its_bound(tmp_path: Path) -> None:
    """A rate and a ratio a round, and how long single requests take."""
    figures = await whole.measure(tmp_path, MODELS / "tiny-clip", "float32", count=20, rounds=2)

    assert len(figures.ratios) == len(figures.images_per_second) == 2
    assert min(figures.ratios) > 0
    assert figures.half_load_ms[0] > 0


async def test_predecessor_is_measured_beside_the_consumer(tmp_path: Path) -> None:
    """A rate of each a round, and how long a lone request takes."""
    figures = await predecessor.measure(tmp_path, MODELS / "tiny-clip", count=20, rounds=2)

    assert len(figures.ratios) == 2
    assert min(figures.ratios) > 0
    assert min(*figures.server_lone_ms, *figures.consumer_lone_ms) > 0


async def test_captions_are_measured_through_the_consumer(tmp_path: Path) -> None:
    """A rate and a ratio a round."""
    rates, ratios = await served_captions.measure(
        tmp_path,
        MODELS / "tiny-blip",
        lambda: None,
        dtype="float32",
        count=9,
        rounds=2,
    )

    assert len(rates) == len(ratios) == 2
    assert min(rates + ratios) > 0


async def test_partitions_are_measured_by_their_number(tmp_path: Path) -> None:
    """Each with as many consumers."""
    rates = await scale.measure(tmp_path, (1, 2), count=20, rounds=1)

    assert [len(values) for values in rates.values()] == [1, 1]
    assert min(rates[1] + rates[2]) > 0
