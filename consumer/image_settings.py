"""The settings of image sources, and the limits of fetching and decoding."""

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from consumer.images.decoding.limits import (
    DEFAULT_FORMATS,
    DEFAULT_MEMORY_BYTES,
    DecodeLimits,
    Format,
)
from consumer.images.retry import RetryPolicy
from imagelane.settings import CommaSeparated, WireSettings


def _formats(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip().upper() for part in value.split(",") if part.strip()]


Bytes = Annotated[int, Field(gt=0)]


class ImageSettings(WireSettings):
    """The settings of `consumer/images`; `ConsumerSettings` adds the rest."""

    file_roots: CommaSeparated = Field(
        default=(),
        description="folders that `file:` may read, by comma; none: forbidden",
    )
    data_max_bytes: int = Field(
        default=6144, ge=0, description="largest image in a `data:` URI; 0: `data:` is forbidden"
    )
    allowed_hosts: CommaSeparated = Field(
        default=(),
        description="hosts of `http(s):`, by comma: `host`, or `.domain` with the names below it, "
        "each with `:port` unless it is the default; none: forbidden",
    )
    allow_public_hosts: bool = Field(
        default=False,
        description="`http(s):` may also ask every host that has public addresses only",
    )
    allowed_networks: CommaSeparated = Field(
        default=(),
        description="networks where ALLOWED_HOSTS may be, besides public ones: `10.1.0.0/16`",
    )
    egress_proxy: str | None = Field(
        default=None,
        pattern=r"^http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?$",
        description="proxy that connects to the hosts instead, and must then check addresses",
    )
    http_ca_file: str | None = Field(
        default=None, description="PEM file of further authorities for `https:` and S3_ENDPOINT"
    )
    http_user_agent: str = Field(
        default="imagelane",
        pattern=r"^[!-~]([ -~]{0,254}[!-~])?$",
        description="User-Agent for `http(s):`; some hosts demand a contact in it",
    )
    http_headers: SecretStr = Field(
        default=SecretStr(""),
        description="headers for one host each, `host Name: value` a line, over `https:` only; "
        "tokens belong into HTTP_HEADERS_FILE",
    )
    http_per_host: int = Field(default=16, ge=1, description="fetches from one host at once")
    s3_buckets: CommaSeparated = Field(
        default=(),
        description="`bucket` or `bucket/prefix/` that `s3:` may read, by comma; none: forbidden",
    )
    s3_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?$",
        description="address of the store, path-style; none: AWS's of the region",
    )
    s3_region: str = Field(
        default="us-east-1", pattern=r"^[a-z0-9-]{1,64}$", description="region of the buckets"
    )
    s3_access_key_id: str | None = Field(
        default=None, description="access key; none: botocore finds credentials (a role, AWS_*)"
    )
    s3_secret_access_key: SecretStr | None = Field(
        default=None, description="secret key of S3_ACCESS_KEY_ID"
    )
    fetch_connect_seconds: float = Field(
        default=5, gt=0, description="longest time for a connection to an image's host"
    )
    fetch_idle_seconds: float = Field(
        default=10, gt=0, description="longest silence of a host while it is read"
    )
    fetch_total_seconds: float = Field(
        default=30, gt=0, description="longest time for an answer with its body, or for a file"
    )
    fetch_grace_seconds: float = Field(
        default=5, gt=0, description="time after which a body must come fast enough"
    )
    fetch_min_bytes_per_second: float = Field(
        default=8192, ge=0, description="least average speed of a body after that time"
    )
    max_image_bytes: Bytes = Field(default=64 * 2**20, description="largest image, as fetched")
    max_image_pixels: Bytes = Field(
        default=200_000_000,
        description="largest image, in pixels; DECODE_MEMORY_BYTES may allow less",
    )
    bytes_in_flight: Bytes = Field(
        default=512 * 2**20,
        description="most memory of all images at once, as fetched and as pixels",
    )
    fetch_processes: int = Field(
        default=0, ge=0, description="processes that fetch; 0: one for each eight cores"
    )
    decode_processes: int = Field(
        default=0,
        ge=0,
        description="images decoded at once; 0: one per core; a quarter more for slow ones",
    )
    decode_seconds: float = Field(
        default=20, gt=0, description="longest time for decoding one image"
    )
    decode_memory_bytes: Bytes = Field(
        default=DEFAULT_MEMORY_BYTES,
        description="address space of each decoding process (Linux)",
    )
    decode_images_per_process: int = Field(
        default=0, ge=0, description="images after which a decoding process is replaced; 0: never"
    )
    decode_formats: Annotated[tuple[Format, ...], BeforeValidator(_formats)] = Field(
        default=DEFAULT_FORMATS,
        min_length=1,
        description="formats, by comma; also TIFF, AVIF; with the extra `formats` HEIC, RAW",
    )

    retry_attempts: int = Field(default=4, ge=1, description="attempts of a fetch that may heal")
    retry_max_age_seconds: float = Field(
        default=60, ge=0, description="time after its first failure at which a fetch is given up"
    )

    @model_validator(mode="after")
    def _key_pair(self) -> "ImageSettings":
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together")
        return self

    @property
    def s3_url(self) -> str:
        """The address of the store, without a trailing slash."""
        endpoint = self.s3_endpoint or f"https://s3.{self.s3_region}.amazonaws.com"
        return endpoint.rstrip("/")

    @property
    def unreserved_bytes(self) -> int:
        """The bytes of `bytes_in_flight` that may be fetched before they are reserved."""
        return self.bytes_in_flight // 32

    @property
    def decode_limits(self) -> DecodeLimits:
        """The limits of decoding."""
        return DecodeLimits(max_pixels=self.max_image_pixels, formats=self.decode_formats)

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retries of a fetch."""
        return RetryPolicy(
            max_attempts=self.retry_attempts, max_age_seconds=self.retry_max_age_seconds
        )
