"""What the process takes of its machine."""

import gc
import resource

import pytest

from consumer.runtime import limits


def test_as_many_descriptors_as_allowed() -> None:
    """The soft limit is raised to the hard one, which stays."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard, 256), hard))
    try:
        limits.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_kept_is_not_collected_again(fails: bool) -> None:
    """The collector sees what came later alone, and works as before."""
    kept: list[object] = []
    try:
        with limits.permanent_objects():
            assert not gc.isenabled()
            kept.append([])
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    later: list[object] = []
    try:
        seen = set(map(id, gc.get_objects()))
        assert gc.isenabled()
        assert id(kept[0]) not in seen
        assert id(later) in seen
    finally:
        gc.unfreeze()
