"""What is fetched from where, and how patiently. No library of a scheme: both processes know it."""

from dataclasses import dataclass, field

from consumer.images.decoding.limits import DecodeLimits
from consumer.images.sources.hosts import HostRules


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How slow a host may be, in seconds, and in bytes a second once the grace is over."""

    connect_seconds: float
    idle_seconds: float
    total_seconds: float
    grace_seconds: float
    min_bytes_per_second: float

    def allows(self, byte_length: int, seconds: float) -> bool:
        """Tell whether `byte_length` bytes in `seconds` are fast enough."""
        return seconds <= self.grace_seconds or byte_length >= seconds * self.min_bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Which hosts are asked, and how; `headers` as HTTP_HEADERS has them."""

    allowed_hosts: tuple[str, ...]
    allow_public: bool
    networks: tuple[str, ...]
    proxy: str | None
    ca_file: str | None
    user_agent: str
    headers: str = field(repr=False)

    def rules(self) -> HostRules:
        """Return what may be asked and connected to.

        Raises:
            FatalError: a host or a network is not one.
        """
        return HostRules.parse(self.allowed_hosts, public=self.allow_public, networks=self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Which buckets of which store are read, and as whom; no key: as botocore finds it."""

    buckets: tuple[str, ...]
    endpoint: str
    region: str
    access_key_id: str | None
    secret_access_key: str | None = field(repr=False)
    ca_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """The allowed schemes; None, nothing or 0 closes one. `decode` is for the estimate alone."""

    file_roots: tuple[str, ...]
    data_max_bytes: int
    http: HttpOptions | None
    s3: S3Options | None
    limits: FetchLimits
    decode: DecodeLimits
