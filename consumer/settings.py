"""Every setting of the consumer: default and meaning. The table in the README is made from here."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from consumer.images.decoding.limits import DEFAULT_FORMATS, DEFAULT_MEMORY_BYTES, Format
from consumer.images.retry import RetryPolicy
from consumer.partition.beginning import BEGIN_AT_PATTERN
from consumer.partition.offsets import MAX_OPEN
from imagelane.settings import CommaSeparated, WireSettings


def _never(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "never" else value


def _formats(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip().upper() for part in value.split(",") if part.strip()]


SecondsOrNever = Annotated[float | None, BeforeValidator(_never), Field(ge=0)]
Bytes = Annotated[int, Field(gt=0)]


# Of the default models the hub's `main` has pickles only, which are not read; these revisions have
# safetensors. They belong to these models alone: a pull request of another is anybody's.
_REVISIONS: Final = {
    "openai/clip-vit-base-patch32": "b97b0100e55e367c057773c2a614676470b0d575",
    "Salesforce/blip-image-captioning-base": "refs/pr/50",
}


class ConsumerSettings(WireSettings):
    """The settings of one consumer process. Frozen; read once, in `__main__`."""

    group_id: str = Field(
        default="imagelane",
        min_length=1,
        description="consumer group; members share partitions",
    )
    group_instance_id: str | None = Field(
        default=None, description="static member name, so that a restart is no rebalance"
    )
    begin_at: str | None = Field(
        default=None,
        pattern=BEGIN_AT_PATTERN,
        description="where to begin without a position, though results are there: `earliest`, "
        "`latest`, or `partition:offset` by comma, of INGEST_TOPIC (`topic-partition:offset`: of "
        "another)",
    )
    session_timeout_seconds: float = Field(
        default=30, ge=1, description="silence after which the group gives our partitions away"
    )
    transaction_timeout_seconds: float = Field(
        default=15, ge=1, description="age at which the broker aborts an open transaction"
    )
    broker_wait_seconds: float = Field(
        default=60, ge=0, description="how long to wait for a broker at start"
    )
    stop_seconds: float = Field(
        default=10, ge=0, description="time to finish what is in flight when asked to stop"
    )

    join_seconds: float = Field(
        default=60, gt=0, description="time outside the group after which we are not live"
    )
    progress_seconds: float = Field(
        default=180,
        gt=0,
        description="time without a commit, with work, after which we are not live",
    )
    stuck_seconds: float = Field(
        default=60, ge=0, description="time of not being live after which the process ends"
    )
    open_transaction_seconds: float = Field(
        default=60,
        gt=0,
        description="age of somebody's open transaction on INGEST_TOPIC, which holds its records "
        "back, from which on we are not ready",
    )
    alive_file: str | None = Field(
        default=None, description="file touched every second while live, for a health check"
    )
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="port of /livez, /readyz and /metrics; 0: a free one, which the log names",
    )
    health_host: str = Field(
        default="127.0.0.1", min_length=1, description="address that HEALTH_PORT is opened on"
    )
    tracing: bool = Field(
        default=False, description="a trace of each record, by OpenTelemetry; the extra `otel`"
    )

    clip_model: str = Field(
        default="openai/clip-vit-base-patch32",
        description="checkpoint that embeds, hub id or folder: clip, siglip or metaclip_2",
    )
    clip_revision: str | None = Field(
        default=None,
        description="revision of CLIP_MODEL on the hub; none: of the default model one that has "
        "safetensors, of another `main`, whose commit the log and results name",
    )
    blip_model: str = Field(
        default="Salesforce/blip-image-captioning-base",
        description="checkpoint that captions, likewise: blip, blip-2 or git",
    )
    blip_revision: str | None = Field(
        default=None, description="revision of BLIP_MODEL on the hub, likewise"
    )
    blip_idle_seconds: SecondsOrNever = Field(
        default=300, description="idle time after which BLIP leaves; 0: after every batch; `never`"
    )
    blip_host_seconds: SecondsOrNever = Field(
        default=3600,
        description="further idle time after which it leaves host memory; `never`",
    )
    clip_text_idle_seconds: SecondsOrNever = Field(
        default=300, description="idle time after which CLIP's text tower leaves, likewise"
    )
    clip_text_host_seconds: SecondsOrNever = Field(
        default=3600,
        description="further idle time after which it leaves host memory; `never`",
    )
    caption_max_tokens: int = Field(
        default=30, ge=1, le=200, description="longest caption, in tokens"
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="`auto`, `cpu`, `cuda` or `cuda:N`",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="`auto`: bfloat16 or float16 on a GPU, float32 on a CPU"
    )
    torch_threads: int = Field(
        default=0, ge=0, description="threads of one model step on a CPU; 0: torch's choice"
    )
    embed_batch: int = Field(
        default=32, ge=1, le=1024, description="most images or texts of one CLIP step"
    )
    caption_batch: int = Field(default=8, ge=1, le=256, description="most images of one BLIP step")
    embedding_encoding: Literal["base64", "float"] = Field(
        default="base64",
        description="vectors as little-endian float32, or as JSON numbers",
    )

    file_roots: CommaSeparated = Field(
        default=(),
        description="folders that `file:` may read, by comma; none: forbidden",
    )
    data_max_bytes: int = Field(
        default=6144, ge=0, description="largest image in a `data:` URI; 0: `data:` is forbidden"
    )
    allowed_hosts: CommaSeparated = Field(
        default=(),
        description="what `http(s):` may ask, by comma: `host`, `.domain` (it, and the names below "
        "it), each with `:port` if it is not the scheme's; none: forbidden",
    )
    allow_public_hosts: bool = Field(
        default=False,
        description="`http(s):` may ask every other host with public addresses only as well",
    )
    allowed_networks: CommaSeparated = Field(
        default=(),
        description="what addresses ALLOWED_HOSTS may have besides public ones, `10.1.0.0/16`",
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
        description="what `s3:` may read, `bucket` or `bucket/prefix/`, by comma; none: forbidden",
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
        default=None, description="access key; none: what botocore finds (a role, AWS_*)"
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
        default=30, gt=0, description="longest time for an answer with its body, and for a file"
    )
    fetch_grace_seconds: float = Field(
        default=5, gt=0, description="time after which a body must come fast enough"
    )
    fetch_min_bytes_per_second: float = Field(
        default=8192, ge=0, description="least speed of a body from then on, on average"
    )
    max_image_bytes: Bytes = Field(default=64 * 2**20, description="largest image, as fetched")
    max_image_pixels: Bytes = Field(
        default=200_000_000,
        description="largest image, in pixels; formats that take more memory: what it allows",
    )
    bytes_in_flight: Bytes = Field(
        default=512 * 2**20,
        description="most memory of images at once, as fetched and as pixels",
    )
    records_in_flight: int = Field(
        default=2000, ge=1, le=MAX_OPEN, description="records in work at once, per partition"
    )
    decode_processes: int = Field(
        default=0,
        ge=0,
        description="images decoded at once; 0: one per core; slow ones have a quarter more",
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
        description="what is decoded; also TIFF, AVIF; with the extra `formats` HEIC, RAW",
    )

    append_window_seconds: int = Field(
        default=300, ge=1, description="signature age allowed at append (LogAppendTime)"
    )
    create_window_seconds: int = Field(
        default=86_400, ge=1, description="signature age allowed now (CreateTime topics)"
    )
    retry_attempts: int = Field(default=4, ge=1, description="tries of a fetch that may heal")
    retry_max_age_seconds: float = Field(
        default=60, ge=0, description="time after its first failure at which a fetch is given up"
    )
    allow_compressed: bool = Field(
        default=False,
        description="read topics that keep the producers' compression; else: exit code 72",
    )
    dlq_bytes_per_second: float = Field(
        default=256 * 1024,
        ge=0,
        description="refused records kept whole as dead letters; above it their hashes are kept",
    )
    commit_outcomes: int = Field(default=500, ge=1, description="most outcomes of one transaction")
    commit_seconds: float = Field(
        default=0.1, ge=0, description="longest wait of an outcome for its transaction"
    )

    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: console on a terminal, JSON lines otherwise"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level logged"
    )

    @model_validator(mode="after")
    def _timeouts(self) -> "ConsumerSettings":
        if self.transaction_timeout_seconds >= self.session_timeout_seconds:
            # A dead owner's transaction must be over before its partition is given away.
            raise ValueError(
                "TRANSACTION_TIMEOUT_SECONDS must be less than SESSION_TIMEOUT_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _key_pair(self) -> "ConsumerSettings":
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together")
        return self

    @property
    def revision_of_clip(self) -> str:
        """What is asked of the hub for CLIP_MODEL."""
        return self.clip_revision or _REVISIONS.get(self.clip_model, "main")

    @property
    def revision_of_blip(self) -> str:
        """What is asked of the hub for BLIP_MODEL."""
        return self.blip_revision or _REVISIONS.get(self.blip_model, "main")

    @property
    def s3_url(self) -> str:
        """The address of the store, without a slash at its end."""
        endpoint = self.s3_endpoint or f"https://s3.{self.s3_region}.amazonaws.com"
        return endpoint.rstrip("/")

    @property
    def retry_policy(self) -> RetryPolicy:
        """How a fetch is tried again."""
        return RetryPolicy(
            max_attempts=self.retry_attempts, max_age_seconds=self.retry_max_age_seconds
        )
