"""The first message of each side: the options of a fetching process, and whether it can start."""

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from consumer.images.sources.options import FetchOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The answer; `fault` says why the consumer cannot start, and `exit_code` how it ends."""

    exit_code: int = 0
    fault: str = ""


OPTIONS_JSON: Final = TypeAdapter(FetchOptions)
STARTED_JSON: Final = TypeAdapter(Started)
