"""The packages have common names: another distribution may bring one of them along."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["consumer", "imagelane", "producer", "schemas"])
def test_package_is_the_one_of_this_checkout(name: str) -> None:
    """Each name resolves to the folder beside this file's tests, not to an installed namesake."""
    package = import_module(name)

    assert [Path(path).resolve() for path in package.__path__] == [ROOT / name]
