"""Prometheus and its tool, where they are installed."""

import os
import shutil

import pytest


def _installed(name: str) -> str:
    """Return a program of Debian's package `prometheus`; skipped without, failed if demanded."""
    found = shutil.which(name)
    if found:
        return found
    reason = f"no {name} on PATH: Debian's package `prometheus` has it"
    if os.environ.get("REQUIRE_PROMTOOL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def promtool() -> str:
    """What checks rules."""
    return _installed("promtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """The server itself."""
    return _installed("prometheus")
