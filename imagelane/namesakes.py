"""Whether another package hides `schemas`, `producer` or `consumer`: the names are common."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from imagelane.exits import ImagelaneError

_NAMES: Final = ("schemas", "producer", "consumer")
_ROOT: Final = Path(__file__).resolve().parent.parent


class Shadowed(ImagelaneError, ImportError):
    """An application's package hides one of ours by its name."""


def check_namesakes() -> None:
    """Raise `Shadowed` if Python finds another package under one of our names."""
    for name in _NAMES:
        found = sys.modules.get(name) or find_spec(name)
        file = getattr(found, "__file__", None) or getattr(found, "origin", None)
        if file and Path(file).resolve().parent.parent != _ROOT:
            raise Shadowed(
                f"a package named {name} in {Path(file).parent.parent} is in the way of "
                "imagelane's; publish by the command `imagelane`, or where it is not on the path"
            )
