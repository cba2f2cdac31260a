"""Every metric: its name, its unit and one sentence. `make docs` writes docs/metrics.md from it.

`consumer.telemetry.collector` reads the values at each scrape, so they cost no record any time;
`consumer.telemetry.tally` counts outcomes once a commit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from consumer.runtime.distribution import Distribution


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, named as Prometheus advises: unit at the end, `_total` after a counter's."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric; `labels` are values in the order of the metric's names."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Distribution


METRICS: Final[dict[str, Metric]] = {}


def _metric(kind: Kind, name: str, meaning: str, *labels: str) -> Metric:
    metric = Metric(name=f"imagelane_{name}", kind=kind, meaning=meaning, labels=labels)
    METRICS[metric.name] = metric
    return metric


BUILD: Final = _metric(
    Kind.GAUGE, "build_info", "1, with the versions of imagelane and Python.", "version", "python"
)
LIVE: Final = _metric(Kind.GAUGE, "live", "1 while the watchdog finds no fault, as /livez.")
READY: Final = _metric(Kind.GAUGE, "ready", "1 while the process is ready, as /readyz.")
NOT_READY: Final = _metric(
    Kind.GAUGE, "not_ready", "1 for each cause that makes the process not ready.", "cause"
)
LOOP_LAG: Final = _metric(
    Kind.HISTOGRAM,
    "event_loop_lag_seconds",
    "How late the event loop woke the watchdog, once a second.",
)

RECORDS: Final = _metric(
    Kind.COUNTER,
    "records_total",
    "Records with a committed outcome: ok, error, refused or repeat; the middle two have a code.",
    "outcome",
    "code",
)
STAGE_SECONDS: Final = _metric(
    Kind.HISTOGRAM,
    "stage_seconds",
    "How long a committed record took: queue (from its append to being taken), fetch, decode, "
    "embed and caption (each its whole batch), and total (from being taken to its outcome).",
    "stage",
)
COMMIT_SECONDS: Final = _metric(
    Kind.HISTOGRAM,
    "commit_seconds",
    "How long a commit took, retries included; its count is the number of commits.",
)
IN_DOUBT: Final = _metric(
    Kind.COUNTER,
    "transactions_in_doubt_total",
    "Transactions whose end got no answer, so that the committed position was read.",
)
ABORTED: Final = _metric(
    Kind.COUNTER,
    "transactions_aborted_total",
    "Aborts that end any transaction left open: one at each assignment, one after a transaction "
    "in doubt that was not committed.",
)

ASSIGNED: Final = _metric(
    Kind.GAUGE, "assigned_partitions", "Partitions whose worker runs in this process."
)
BACKLOG: Final = _metric(
    Kind.GAUGE,
    "backlog_records",
    "Readable records without a committed outcome; scale by this.",
    "topic",
    "partition",
)
OPEN: Final = _metric(
    Kind.GAUGE,
    "open_records",
    "Records of the backlog that were taken: in work, or waiting for their commit.",
    "topic",
    "partition",
)
STABLE_LAG: Final = _metric(
    Kind.GAUGE,
    "last_stable_offset_lag_records",
    "Offsets behind the last stable one at the last fetch: an open transaction holds them back.",
    "topic",
    "partition",
)
DELETED: Final = _metric(
    Kind.COUNTER,
    "deleted_unread_records_total",
    "Records that retention or DeleteRecords deleted from the log before they were read.",
)

QUEUE: Final = _metric(
    Kind.GAUGE,
    "queue_depth",
    "Waiting: images for a decoding process, images and texts for a model, fetches for memory.",
    "queue",
)
IMAGE_BYTES: Final = _metric(
    Kind.GAUGE,
    "image_bytes",
    "Memory that images hold, as fetched and as pixels, by budget.",
    "budget",
)
IMAGE_BYTES_LIMIT: Final = _metric(
    Kind.GAUGE,
    "image_bytes_limit",
    "The budget's limit; only one image that is larger by itself may exceed it.",
    "budget",
)
DECODERS_REPLACED: Final = _metric(
    Kind.COUNTER,
    "decoders_replaced_total",
    "Decoding processes that were replaced: after a crash, a limit or their number of images.",
    "lane",
)

BATCH_IMAGES: Final = _metric(
    Kind.HISTOGRAM, "batch_images", "Images or texts of one batch of a model.", "model"
)
BATCH_LIMIT: Final = _metric(
    Kind.GAUGE,
    "batch_limit_images",
    "Most images or texts of the next batch; less than the setting after memory ran out.",
    "model",
)
MODEL_BUSY: Final = _metric(
    Kind.COUNTER, "model_busy_seconds_total", "Time that batches of a model took.", "model"
)
SPLITS: Final = _metric(
    Kind.COUNTER,
    "out_of_memory_splits_total",
    "Batches, or pieces of one, that were halved because the device's memory ran out.",
    "model",
)
MODEL_STATE: Final = _metric(
    Kind.GAUGE,
    "model_state",
    "1 for the state of a model on demand: unloaded, loading, host or device.",
    "model",
    "state",
)
LOADS: Final = _metric(
    Kind.COUNTER, "model_loads_total", "Successful loads of a model on demand.", "model"
)
LOAD_SECONDS: Final = _metric(
    Kind.COUNTER, "model_load_seconds_total", "Time that these loads took.", "model"
)
LOAD_FAILURES: Final = _metric(
    Kind.COUNTER,
    "model_load_failures_total",
    "Loads, or moves to the device, that failed.",
    "model",
)
DEVICE_MEMORY: Final = _metric(
    Kind.GAUGE,
    "device_memory_bytes",
    "Memory of the GPU: allocated by tensors, reserved by torch, free and total as the driver "
    "says; none on a CPU.",
    "kind",
)


def table() -> str:
    """Return the Markdown table of all metrics."""
    lines = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines)


def by_metric(samples: Iterable[Sample]) -> Mapping[Metric, list[Sample]]:
    """Group samples, in the order in which the metrics are declared."""
    groups: dict[Metric, list[Sample]] = {metric: [] for metric in METRICS.values()}
    for sample in samples:
        groups[sample.metric].append(sample)
    return groups
