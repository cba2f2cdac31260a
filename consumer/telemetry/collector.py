"""Reads the metrics' values from the objects of a running consumer, at each scrape."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

from consumer.broker.log_ends import LogEnd
from consumer.inference.residency import State
from consumer.partition.offsets import PartitionId
from consumer.runtime.distribution import Distribution
from consumer.telemetry import metrics
from consumer.telemetry.metrics import Kind, Metric, Sample
from consumer.telemetry.state import Components, ProcessState
from consumer.telemetry.tally import OutcomeTally

_PROCESS: Final = ProcessCollector(registry=None)


async def exposition(state: ProcessState) -> bytes:
    """Return all metrics in Prometheus' text format."""
    samples = list(_of_process(state))
    if components := state.components:
        ends = await components.stream.log_ends(components.workers.open_workers)
        samples += _of_records(components.tally)
        samples += _of_partitions(components, ends)
        samples += _of_images(components)
        samples += _of_models(components)
    registry = CollectorRegistry()
    registry.register(_Families(samples))
    registry.register(_PROCESS)
    return generate_latest(registry)


class _Families:
    """The samples as a collector of prometheus-client."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = metrics.by_metric(samples)

    def collect(self) -> Iterator[Family]:
        for metric, samples in self._samples.items():
            if samples:
                yield _family(metric, samples)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    kinds: dict[Kind, Any] = {
        Kind.COUNTER: CounterMetricFamily,
        Kind.GAUGE: GaugeMetricFamily,
        Kind.HISTOGRAM: HistogramMetricFamily,
    }
    family: Family = kinds[metric.kind](metric.name, metric.meaning, labels=metric.labels)
    for sample in samples:
        if isinstance(sample.value, Distribution):
            family.add_metric(sample.labels, sample.value.buckets, sample.value.sum)  # type: ignore[attr-defined]
        else:
            family.add_metric(sample.labels, sample.value)  # type: ignore[attr-defined]
    return family


def _of_process(state: ProcessState) -> Iterator[Sample]:
    yield Sample(metrics.BUILD, (_version(), platform.python_version()), 1)
    yield Sample(metrics.LIVE, (), state.liveness.fault is None)
    yield Sample(metrics.READY, (), not state.reasons)
    for cause in state.reasons:
        yield Sample(metrics.NOT_READY, (cause,), 1)
    yield Sample(metrics.LOOP_LAG, (), state.liveness.loop_lag_seconds)


def _of_records(tally: OutcomeTally) -> Iterator[Sample]:
    for label, count in tally.records.items():
        yield Sample(metrics.RECORDS, label, count)
    for stage, seconds in tally.stage_seconds.items():
        yield Sample(metrics.STAGE_SECONDS, (stage,), seconds)
    yield Sample(metrics.COMMIT_SECONDS, (), tally.commit_seconds)


def _of_partitions(components: Components, ends: Mapping[PartitionId, LogEnd]) -> Iterator[Sample]:
    counts = components.stream.transaction_counts
    yield Sample(metrics.IN_DOUBT, (), counts.in_doubt)
    yield Sample(metrics.ABORTED, (), counts.aborted)
    yield Sample(metrics.DELETED, (), components.stream.deleted_unread)
    yield Sample(metrics.ASSIGNED, (), len(components.workers.open_workers))
    for partition, worker in components.workers.open_workers.items():
        topic, number = partition
        label = topic, str(number)
        yield Sample(metrics.OPEN, label, worker.in_flight)
        if end := ends.get(partition):
            backlog = worker.backlog(position=end.position, end=end.stable)
            yield Sample(metrics.BACKLOG, label, backlog)
            yield Sample(metrics.STABLE_LAG, label, end.withheld)


def _of_images(components: Components) -> Iterator[Sample]:
    for name, lane in components.decoder.lanes.items():
        yield Sample(metrics.QUEUE, (name,), lane.waiting)
        yield Sample(metrics.DECODERS_REPLACED, (name,), lane.replaced)
    for name, budget in components.budgets.items():
        yield Sample(metrics.QUEUE, (f"memory_{name}",), budget.waiting)
        yield Sample(metrics.IMAGE_BYTES, (name,), budget.held_bytes)
        yield Sample(metrics.IMAGE_BYTES_LIMIT, (name,), budget.limit_bytes)


def _of_models(components: Components) -> Iterator[Sample]:
    for model, queue in components.engine.queues.items():
        label = (_label(model),)
        yield Sample(metrics.QUEUE, label, len(queue))
        yield Sample(metrics.BATCH_IMAGES, label, Distribution.of_sizes(queue.batches))
        yield Sample(metrics.BATCH_LIMIT, label, queue.size.limit)
        yield Sample(metrics.MODEL_BUSY, label, queue.busy_seconds)
        yield Sample(metrics.SPLITS, label, queue.out_of_memory_splits)
    for name, on_demand in components.engine.on_demand.items():
        label = (_label(name),)
        for state in State:
            holds = on_demand.state is state
            yield Sample(metrics.MODEL_STATE, (*label, state.name.lower()), holds)
        yield Sample(metrics.LOADS, label, on_demand.loads)
        yield Sample(metrics.LOAD_SECONDS, label, on_demand.load_seconds)
        yield Sample(metrics.LOAD_FAILURES, label, on_demand.load_failures)
    for kind, byte_length in components.device_memory().items():
        yield Sample(metrics.DEVICE_MEMORY, (kind,), byte_length)


def _label(model: str) -> str:
    return model.lower().replace(" ", "_")


def _version() -> str:
    try:
        return version("imagelane")
    except PackageNotFoundError:  # the container image has the code without its wheel
        return "unknown"
