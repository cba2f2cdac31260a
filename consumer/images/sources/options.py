"""Options of the sources. Both processes import them, so no library of a scheme is here."""

from dataclasses import dataclass, field

from consumer.images.decoding.limits import DecodeLimits
from consumer.images.sources.hosts import HostRules


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How slow a host may be: seconds, and bytes a second after the grace time."""

    connect_seconds: float
    idle_seconds: float
    total_seconds: float
    grace_seconds: float
    min_bytes_per_second: float

    def allows(self, byte_length: int, seconds: float) -> bool:
        """Whether `byte_length` bytes in `seconds` are fast enough."""
        return seconds <= self.grace_seconds or byte_length >= seconds * self.min_bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """The allowed hosts and how they are asked; `headers` is the text of HTTP_HEADERS."""

    allowed_hosts: tuple[str, ...]
    allow_public: bool
    networks: tuple[str, ...]
    proxy: str | None
    ca_file: str | None
    user_agent: str
    headers: str = field(repr=False)

    def rules(self) -> HostRules:
        """Return the rules for hosts and addresses.

        Raises:
            FatalError: a host or a network is not one.
        """
        return HostRules.parse(self.allowed_hosts, public=self.allow_public, networks=self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """The allowed buckets of one store, and its credentials; none: botocore finds them."""

    buckets: tuple[str, ...]
    endpoint: str
    region: str
    access_key_id: str | None
    secret_access_key: str | None = field(repr=False)
    ca_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """Options by scheme; an empty one forbids it. `decode` only estimates the time to decode."""

    file_roots: tuple[str, ...]
    data_max_bytes: int
    http: HttpOptions | None
    s3: S3Options | None
    limits: FetchLimits
    decode: DecodeLimits
