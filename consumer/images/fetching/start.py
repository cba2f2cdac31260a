"""The first word of either side: what a fetching process may fetch, and whether it can."""

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from consumer.images.sources.options import FetchOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The answer: with which exit code and why the consumer cannot begin, if so."""

    exit_code: int = 0
    fault: str = ""


OPTIONS_JSON: Final = TypeAdapter(FetchOptions)
STARTED_JSON: Final = TypeAdapter(Started)
