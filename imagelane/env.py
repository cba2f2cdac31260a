"""The environment of a program: variables, `.env` and options, with the origin of each value."""

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from dotenv import dotenv_values

from imagelane.exits import ExitCode, FatalError

Layer = tuple[str, Mapping[str, str]]  # the origin of the values, the values by name


class Environment(Mapping[str, str]):
    """Values by name. The first layer that has a name counts, even with an empty value."""

    def __init__(self, *layers: Layer) -> None:
        self._layers = layers

    def __getitem__(self, name: str) -> str:
        for _, values in self._layers:
            if name in values:
                return values[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for _, values in self._layers for name in values))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def origin(self, name: str) -> str | None:
        """Return the origin of the value of `name`; None without a value."""
        return next((origin for origin, values in self._layers if name in values), None)

    def with_option(self, option: str, values: Mapping[str, str]) -> Self:
        """Return an environment in which the values of an option come first."""
        return type(self)((option, values), *self._layers)


def read_environment(file: Path = Path(".env")) -> Environment:
    """Return the process's variables, and behind them those of `.env` if it exists.

    Raises:
        FatalError: the file cannot be read, or is not UTF-8.
    """
    return Environment(("environment", os.environ), (str(file), _read(file)))


def _read(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        data = file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as exc:
        raise FatalError(ExitCode.SETTINGS, f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise FatalError(ExitCode.SETTINGS, f"{file} is not UTF-8; save it as UTF-8") from exc
    if "\0" in text:
        raise FatalError(ExitCode.SETTINGS, f"{file} is UTF-16, it seems; save it as UTF-8")
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if value is not None}
