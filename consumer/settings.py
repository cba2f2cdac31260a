"""Every setting of the consumer: default and meaning. `make docs` writes the README's table."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from consumer.image_settings import ImageSettings
from consumer.partition.begin_at import BEGIN_AT_PATTERN
from imagelane.position import MAX_OPEN
from schemas.messages import Encoding


def _never(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "never" else value


SecondsOrNever = Annotated[float | None, BeforeValidator(_never), Field(ge=0)]


# On the hub, `main` of the default models has only pickles, which are not read; these revisions
# have safetensors. For other models there is no default: anybody can open a pull request.
_REVISIONS: Final = {
    "openai/clip-vit-base-patch32": "b97b0100e55e367c057773c2a614676470b0d575",
    "Salesforce/blip-image-captioning-base": "refs/pr/50",
}


class ConsumerSettings(ImageSettings):
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
        description="age at which an open transaction on INGEST_TOPIC, which holds records back, "
        "makes us not ready",
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
        description="revision of CLIP_MODEL on the hub; none: a pinned one for the default model, "
        "`main` for another; the log and results name the commit",
    )
    blip_model: str = Field(
        default="Salesforce/blip-image-captioning-base",
        description="checkpoint that captions, hub id or folder: blip, blip-2 or git",
    )
    blip_revision: str | None = Field(
        default=None, description="revision of BLIP_MODEL on the hub; none: as for CLIP_REVISION"
    )
    blip_idle_seconds: SecondsOrNever = Field(
        default=300,
        description="idle time after which BLIP leaves the device; 0: after every batch; `never`",
    )
    blip_host_seconds: SecondsOrNever = Field(
        default=3600,
        description="further idle time after which it leaves host memory; `never`",
    )
    clip_text_idle_seconds: SecondsOrNever = Field(
        default=300,
        description="idle time after which CLIP's text tower leaves; 0: after every batch; `never`",
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
        default="auto",
        description="`auto`: half precision on a GPU or a CPU that is faster in it, else float32",
    )
    torch_threads: int = Field(
        default=0, ge=0, description="threads of one model step on a CPU; 0: torch's choice"
    )
    embed_batch: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        default="auto",
        description="most images or texts of one CLIP step; `auto`: on a GPU the smallest that is "
        "within 3 % of its best rate, measured at start; on a CPU 32",
    )
    caption_batch: int = Field(default=8, ge=1, le=256, description="most images of one BLIP step")
    embedding_encoding: Encoding = Field(
        default="base64",
        description="vectors as float32, little-endian (`base64`) or big-endian (`base64-be`, "
        "what Elasticsearch reads), or as JSON numbers (`float`)",
    )

    records_in_flight: int = Field(
        default=2000, ge=1, le=MAX_OPEN, description="records in work at once, per partition"
    )
    append_window_seconds: int = Field(
        default=300, ge=1, description="signature age allowed at append (LogAppendTime)"
    )
    create_window_seconds: int = Field(
        default=86_400, ge=1, description="signature age allowed now (CreateTime topics)"
    )
    allow_compressed: bool = Field(
        default=False,
        description="read topics that keep compressed batches; without it: exit code 72",
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
            # A dead owner's transaction must end before the group reassigns its partition.
            raise ValueError(
                "TRANSACTION_TIMEOUT_SECONDS must be less than SESSION_TIMEOUT_SECONDS"
            )
        return self

    @property
    def clip_revision_or_default(self) -> str:
        """The revision of CLIP_MODEL on the hub."""
        return self.clip_revision or _REVISIONS.get(self.clip_model, "main")

    @property
    def blip_revision_or_default(self) -> str:
        """The revision of BLIP_MODEL on the hub."""
        return self.blip_revision or _REVISIONS.get(self.blip_model, "main")
