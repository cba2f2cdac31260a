"""Makes each part of the process from the settings; no part knows the settings class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from consumer.broker.beginnings import Beginnings
from consumer.broker.cluster import NO_QUERIES_TOPIC, Cluster, TopicFacts
from consumer.broker.evidence import ResultsEvidence
from consumer.broker.group import GroupOptions, KafkaStream
from consumer.images.byte_budget import ByteBudget
from consumer.images.decoding.pool import Decoder
from consumer.images.prepare import FetchAndDecode
from consumer.images.sources import Sources
from consumer.inference.engine import Engine
from consumer.inference.residency import ResidencyPolicy
from consumer.partition.begin_at import BeginAt
from consumer.record.results import OutcomeEncoder
from consumer.runtime import limits
from consumer.runtime.readiness import Readiness
from consumer.runtime.watchdog import Bounds
from consumer.settings import ConsumerSettings
from imagelane.kafka.client import client_arguments
from schemas import Signer, Verifier

if TYPE_CHECKING:
    from consumer.inference.models.load import Models

log = structlog.get_logger()

_CPU_BATCH = 32  # the best of 1, 8 and 32 in bfloat16, and 0.92 of it in float32: benchmarks.dtypes


def kafka_client(settings: ConsumerSettings) -> dict[str, Any]:
    """Return the arguments of every Kafka client of this process."""
    return client_arguments(settings, "imagelane")


def open_cluster(settings: ConsumerSettings) -> Cluster:
    """Return the administrative client; its context connects it."""
    return Cluster(
        kafka=settings,
        client=kafka_client(settings),
        topics=(settings.ingest_topic, settings.results_topic, settings.dlq_topic),
        queries_topic=settings.queries_topic,
        group_id=settings.group_id,
        broker_wait_seconds=settings.broker_wait_seconds,
        position_wait_seconds=settings.transaction_timeout_seconds,
    )


async def open_group(
    settings: ConsumerSettings, cluster: Cluster, readiness: Readiness
) -> KafkaStream:
    """Check the topics and the group's positions, and return the member of the group.

    Raises:
        FatalError: a topic is missing or unsafe, or the group has lost its position.
    """
    ingest, *outputs = await cluster.topics()
    queries = await cluster.queries()
    beginnings = make_beginnings(settings, cluster, [ingest, queries], outputs[0])
    await beginnings.look_back()
    replay_seconds = _replay_seconds(settings, ingest, queries)
    return KafkaStream(
        group_options(settings), cluster, outputs, beginnings, replay_seconds, readiness
    )


def group_options(settings: ConsumerSettings) -> GroupOptions:
    """Return the group to join, and its timeouts."""
    return GroupOptions(
        client=kafka_client(settings),
        group_id=settings.group_id,
        group_instance_id=settings.group_instance_id,
        session_timeout_seconds=settings.session_timeout_seconds,
        transaction_timeout_seconds=settings.transaction_timeout_seconds,
        open_transaction_seconds=settings.open_transaction_seconds,
    )


def make_beginnings(
    settings: ConsumerSettings,
    cluster: Cluster,
    topics: Sequence[TopicFacts | None],
    results: TopicFacts,
) -> Beginnings:
    """Return the rules where the group begins without a position."""
    evidence = ResultsEvidence(
        client=kafka_client(settings),
        results_topic=results.name,
        results_partitions=results.partitions,
        group_id=settings.group_id,
        verifier=Verifier(settings.keys, results.name),
    )
    return Beginnings(
        cluster=cluster,
        topics=[topic for topic in topics if topic],
        group_id=settings.group_id,
        begin_at=BeginAt.parse(settings.begin_at, settings.ingest_topic),
        evidence=evidence,
    )


def _replay_seconds(
    settings: ConsumerSettings, ingest: TopicFacts, queries: TopicFacts | None
) -> dict[str, float]:
    """Return the length of the replay window by topic of requests, and log its clock."""
    if queries is None:
        log.warning("topic can be better", reason=NO_QUERIES_TOPIC)
    seconds_by_topic: dict[str, float] = {}
    for role, topic in (("ingest", ingest), ("queries", queries)):
        if topic is None:
            continue
        if topic.append_time:
            clock, seconds = "append time", settings.append_window_seconds
        else:
            clock, seconds = "own clock (CreateTime topic)", settings.create_window_seconds
        facts = {role: topic.name, "partitions": topic.partitions}
        log.info("topics", **facts, freshness=clock, freshness_seconds=seconds)
        if fault := topic.compression_fault(allowed=settings.allow_compressed):
            log.warning("topic can be better", topic=topic.name, reason=fault)
        seconds_by_topic[topic.name] = 2 * seconds
    return seconds_by_topic


def open_models(settings: ConsumerSettings) -> "Models":
    """Load CLIP's image tower and check the rest: seconds, or minutes with a download.

    Raises:
        FatalError: a checkpoint or the device is not usable.
    """
    log.info("models loading", clip=settings.clip_model, blip=settings.blip_model)
    limits.spin_briefly()
    with limits.permanent_objects():
        # Imported here: torch takes seconds, and a wrong setting should be reported before.
        from consumer.inference.models import load

        models = load.open_models(
            load.ModelOptions(
                clip=settings.clip_model,
                clip_revision=settings.clip_revision_or_default,
                blip=settings.blip_model,
                blip_revision=settings.blip_revision_or_default,
                caption_max_tokens=settings.caption_max_tokens,
                device=settings.device,
                dtype=settings.dtype,
                torch_threads=settings.torch_threads,
            )
        )
    clip, blip = models.embedder.identity, models.captioner.identity
    log.info(
        "models",
        clip=f"{clip.model} at {clip.revision}",
        blip=f"{blip.model} at {blip.revision}",
        device=models.device,
    )
    return models


def open_engine(settings: ConsumerSettings, models: "Models") -> Engine:
    """Return the engine of the models; its context warms them up."""
    return Engine(
        models.embedder,
        models.captioner,
        models.text_embedder,
        embed_batch=_embed_batch(settings, host_is_device=models.host_is_device),
        caption_batch=settings.caption_batch,
        residency=ResidencyPolicy(
            idle_seconds=settings.blip_idle_seconds,
            host_seconds=settings.blip_host_seconds,
            host_is_device=models.host_is_device,
        ),
        text_residency=ResidencyPolicy(
            idle_seconds=settings.clip_text_idle_seconds,
            host_seconds=settings.clip_text_host_seconds,
            host_is_device=models.host_is_device,
        ),
    )


def _embed_batch(settings: ConsumerSettings, *, host_is_device: bool) -> int | None:
    """Return the batch size; None: to be measured, which on a CPU would take seconds."""
    if settings.embed_batch != "auto":
        return settings.embed_batch
    return _CPU_BATCH if host_is_device else None


def open_decoder(settings: ConsumerSettings) -> Decoder:
    """Return the decoder; its context runs the processes."""
    return Decoder(
        settings.decode_limits,
        timeout_seconds=settings.decode_seconds,
        memory_bytes=settings.decode_memory_bytes,
        workers=settings.decode_processes or None,
        images_per_process=settings.decode_images_per_process,
    )


def make_preparation(
    settings: ConsumerSettings,
    sources: Sources,
    decoder: Decoder,
    models: "Models",
    budget: ByteBudget,
) -> FetchAndDecode:
    """Return the stage that turns references into pixels."""
    return FetchAndDecode(
        sources=sources,
        decoder=decoder,
        resizes=models.resizes,
        retry=settings.retry_policy,
        budget=budget,
    )


def make_encoder(settings: ConsumerSettings, models: "Models") -> OutcomeEncoder:
    """Return the encoder of outcomes, which signs results and names the models."""
    return OutcomeEncoder(
        signer=Signer(settings.keys, settings.results_topic),
        results_topic=settings.results_topic,
        dlq_topic=settings.dlq_topic,
        group_id=settings.group_id,
        embedder=models.embedder.identity,
        captioner=models.captioner.identity,
        encoding=settings.embedding_encoding,
    )


def watch_bounds(settings: ConsumerSettings) -> Bounds:
    """Return the watchdog's bounds."""
    return Bounds(
        join_seconds=settings.join_seconds,
        progress_seconds=settings.progress_seconds,
        loop_seconds=settings.session_timeout_seconds / 3,
        end_seconds=settings.stuck_seconds,
    )
