"""The benchmarks of the consumer's own process run, at a small size."""

from pathlib import Path

from benchmarks import ceiling, cores, simulated_device
from benchmarks.instant import http_host, jpeg


async def test_busy_share_is_measured_for_each_card(tmp_path: Path) -> None:
    """A share of the time for each way that pictures come."""
    shares = await simulated_device.measure(tmp_path, seconds=0.02, rounds=1)

    assert {case.way for case in shares} == set(simulated_device.WAYS)
    assert {(case.card, case.model) for case in shares} >= set(simulated_device.GOALS)
    assert all(0 < value <= 1 for values in shares.values() for value in values)


async def test_ceiling_is_measured_for_each_scheme(tmp_path: Path) -> None:
    """Each row has a rate and the CPU that an image takes."""
    bodies = {f"{length}.jpg": jpeg(length) for length in ceiling.SIZES.values()}
    with http_host(bodies) as port:
        measured = await ceiling.measure(tmp_path, port, count=8, rounds=1, only=None)

    assert {case.scheme for case in measured} == {"-", "data", "file", "http", "s3"}
    assert all(min(values.rates) > 0 for values in measured.values())


def test_cores_are_measured_for_each_kind_of_picture() -> None:
    """More for a faster card, and for what takes longer to decode."""
    small, larger, *_ = cores.measure(rounds=1, largest_megapixels=2)
    assert 0 < small.decode_ms < larger.decode_ms
    assert 1 <= small.cores(1000) <= larger.cores(1000) < larger.cores(10_000)
