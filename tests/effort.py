"""How much a test that tries many inputs tries: a little in each run, all of it where FUZZ=full."""

import os
from typing import Final

FULL: Final = os.environ.get("FUZZ") == "full"


def effort(full: int) -> int:
    """Return `full` where FUZZ=full (`make fuzz`), else a fifth of it."""
    return full if FULL else full // 5
