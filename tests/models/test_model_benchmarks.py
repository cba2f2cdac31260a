"""The benchmarks of the models run, at a small size."""

from pathlib import Path

from benchmarks import caption, dtypes, free_memory


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
