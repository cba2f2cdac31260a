"""Headers that go to one host each: a token that it asks for. Pure.

One a line, `host[:port] Name: value`, over `https:` alone; a line that begins with `#` is a
comment. No message shows a value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from yarl import URL

from consumer.images.sources.hosts import HostRules, NotAllowedError
from imagelane.exits import ExitCode, FatalError

_LINE: Final = re.compile(r"(\S+)[ \t]+([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~]([ -~]*[!-~])?)")
_MAX_LINE_CHARS: Final = 8192
# What frames the request, names its host or changes what is answered.
_OURS: Final = {
    *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"),
    *("accept-encoding", "user-agent", "range", "expect", "proxy-authorization", "cookie"),
}

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HostHeaders:
    """The headers of each host and port."""

    by_host: Mapping[tuple[str, int], Headers] = field(repr=False)

    @classmethod
    def parse(cls, text: str, rules: HostRules) -> Self:
        """Read the lines of HTTP_HEADERS.

        Raises:
            FatalError: a line is not one, or `rules` do not allow its host.
        """
        by_host: dict[tuple[str, int], dict[str, str]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = _LINE.fullmatch(line.strip())
            if parts is None or len(line) > _MAX_LINE_CHARS:
                raise _bad_line(number, "give `host Name: value`, in ASCII")
            name = parts[2].lower()
            if name in _OURS:
                raise _bad_line(number, f"{parts[2]} is not for others to set")
            try:
                url = rules.target(f"https://{parts[1]}/")
            except NotAllowedError as exc:
                raise _bad_line(number, f"its host: {exc}") from exc
            headers = by_host.setdefault(_key(url), {})
            if name in headers:
                raise _bad_line(number, f"{parts[2]} comes twice for its host")
            headers[name] = parts[3]
        return cls(by_host)

    def of(self, url: URL) -> Headers:
        """Return what goes to the host of `url`: nothing over plain HTTP."""
        return self.by_host.get(_key(url), {}) if url.scheme == "https" else {}


def _key(url: URL) -> tuple[str, int]:
    assert url.raw_host is not None
    assert url.port is not None
    return url.raw_host, url.port


def _bad_line(number: int, reason: str) -> FatalError:
    return FatalError(ExitCode.SETTINGS, f"HTTP_HEADERS, line {number}: {reason}")
