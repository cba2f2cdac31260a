"""What the process takes of its machine."""

import resource

from consumer.runtime import limits


def test_as_many_descriptors_as_allowed() -> None:
    """The soft limit is raised to the hard one, which stays."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard, 256), hard))
    try:
        limits.allow_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
