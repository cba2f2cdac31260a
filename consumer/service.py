"""What starts in which order, and how it stops. The only place that wires."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from consumer.broker.beginnings import Beginnings
from consumer.broker.cluster import NO_QUERIES, Cluster, TopicFacts, client_arguments
from consumer.broker.evidence import ResultsEvidence
from consumer.broker.group import KafkaStream
from consumer.image_sources import open_sources
from consumer.images.decoding.confinement import forbid_inspection
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.decoding.pool import Decoder
from consumer.images.prepare import FetchAndDecode
from consumer.inference.engine import Engine
from consumer.inference.residency import ResidencyPolicy
from consumer.partition.assigned import PartitionWorkers
from consumer.partition.beginning import BeginAt
from consumer.probe import probe
from consumer.record.secret_proof import Refusals, SecretProof
from consumer.runtime import limits
from consumer.runtime.alive_file import AliveFile
from consumer.runtime.closing import COMMIT_SECONDS, Closing
from consumer.runtime.health import open_port
from consumer.runtime.live_line import LiveLine
from consumer.runtime.readiness import Readiness
from consumer.runtime.state import ProcessState, Rooms
from consumer.runtime.stop import StopRequest
from consumer.runtime.tally import OutcomeTally
from consumer.runtime.tracing import open_tracing
from consumer.runtime.watchdog import Bounds, watch
from consumer.settings import ConsumerSettings
from consumer.worker_maker import open_budgets, open_writer, worker_maker
from schemas import Verifier

if TYPE_CHECKING:
    from consumer.inference.models.load import Models

log = structlog.get_logger()

POLL_SECONDS: Final = 0.1  # also how long a signal to stop may go unnoticed


async def run(settings: ConsumerSettings, stop: StopRequest, live: LiveLine | None) -> None:
    """Consume until somebody asks to stop; STOP_SECONDS + 2 later it has returned, or ended.

    `live` is the line of a terminal, which is told how much waits.

    Raises:
        FatalError: what is wrong and what to do, bare or in an exception group.
    """
    start = time.monotonic()
    readiness, closing = Readiness(), Closing(is_json=settings.log_format == "json")
    state = ProcessState(readiness=readiness, stop=stop)
    alive = AliveFile.open(settings.alive_file)
    limits.tune()
    forbid_inspection()
    limits.allow_descriptors()
    async with (
        closing.bound(
            "health",
            open_port(state, host=settings.health_host, port=settings.health_port),
        ),
        closing.bound("sources", open_sources(settings)) as sources,
        closing.bound("cluster", Cluster(settings)) as cluster,
        closing.bound("tracing", open_tracing(settings.tracing, settings.group_id)) as traced,
    ):
        ingest, *outputs = await cluster.topics()
        queries = await cluster.queries()
        beginnings = make_beginnings(settings, cluster, [ingest, queries], outputs[0])
        await beginnings.look_back()
        replay_seconds = _replay_seconds(settings, ingest, queries)
        log.info("models loading", clip=settings.clip_model, blip=settings.blip_model)
        # Imported here: torch takes seconds, which nobody should wait for to read of a bad setting.
        from consumer.inference.models.load import open_models

        models = open_models(settings)
        clip, blip = models.embedder.identity, models.captioner.identity
        log.info(
            "models",
            clip=f"{clip.model} at {clip.revision}",
            blip=f"{blip.model} at {blip.revision}",
        )
        async with (
            closing.bound("engine", open_engine(settings, models)) as engine,
            closing.bound("decoder", open_decoder(settings)) as decoder,
            closing.bound(
                "group",
                KafkaStream(settings, cluster, outputs, beginnings, replay_seconds, readiness),
            ) as stream,
            asyncio.TaskGroup() as tasks,
        ):
            log.info("models tried", found=await probe(engine, decoder, models.resizes))
            serving = tasks.create_task(engine.run())
            budget, queries_budget = open_budgets(settings)
            preparation = FetchAndDecode(
                sources=sources,
                decoder=decoder,
                resizes=models.resizes,
                retry=settings.retry_policy,
                budget=budget,
            )
            write, tally = traced(open_writer(settings, models).write), OutcomeTally()
            proof, refusals = SecretProof(), Refusals()
            make_worker = worker_maker(
                settings, preparation, queries_budget, engine, write, proof, refusals, tally
            )
            workers = PartitionWorkers(make_worker, tasks, settings.stop_seconds)
            state.rooms = rooms = Rooms(
                tally=tally,
                workers=workers,
                stream=stream,
                engine=engine,
                decoder=decoder,
                budgets={"backlog": budget, "queries": queries_budget},
                device_memory=models.device_memory,
            )
            guarding = [tasks.create_task(_watch(settings, rooms, state, alive))]
            if live:
                guarding.append(tasks.create_task(live.follow(rooms.waiting)))
            stop.stop_in_order(lambda: closing.begin(settings.stop_seconds))
            stream.join(workers)
            log.info("ready", seconds=round(time.monotonic() - start, 3))
            try:
                await _consume(stream, workers, stop, lambda: _report(proof, refusals, readiness))
            except BaseException:
                closing.begin()
                raise
            log.info("stopping")
            await workers.stop(closing.finish_seconds, COMMIT_SECONDS)
            for task in (*guarding, serving):
                task.cancel()
    log.info("stopped")


async def _consume(
    stream: KafkaStream,
    workers: PartitionWorkers,
    stop: StopRequest,
    report: Callable[[], None],
) -> None:
    while not stop.asked:
        for record in await stream.poll(workers.room(), POLL_SECONDS):
            workers.take(record)
        stream.set_back(workers.rewinds())
        report()


def make_beginnings(
    settings: ConsumerSettings,
    cluster: Cluster,
    topics: Sequence[TopicFacts | None],
    results: TopicFacts,
) -> Beginnings:
    """Return what decides where the group begins without a position."""
    evidence = ResultsEvidence(
        client=client_arguments(settings),
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
    """Return how far back repeats are known, by topic that is read, and log what is in force."""
    if queries is None:
        log.warning("topic can be better", reason=NO_QUERIES)
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


async def _watch(
    settings: ConsumerSettings,
    rooms: Rooms,
    state: ProcessState,
    alive: AliveFile | None,
) -> None:
    session_seconds = settings.session_timeout_seconds
    await watch(
        Bounds(
            join_seconds=settings.join_seconds,
            progress_seconds=settings.progress_seconds,
            loop_seconds=session_seconds / 3,
            end_seconds=settings.stuck_seconds,
        ),
        rooms.snapshot,
        state.readiness,
        end_loop_seconds=2 * session_seconds + settings.stuck_seconds,
        liveness=state.liveness,
        alive=alive,
        is_json=settings.log_format == "json",
    )


def open_engine(settings: ConsumerSettings, models: "Models") -> Engine:
    """Return the engine of a process's models; opened, it is warm."""
    return Engine(
        models.embedder,
        models.captioner,
        models.text_embedder,
        embed_batch=settings.embed_batch,
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


def open_decoder(settings: ConsumerSettings) -> Decoder:
    """Return the decoder; opened, it runs its processes."""
    return Decoder(
        DecodeLimits(max_pixels=settings.max_image_pixels, formats=settings.decode_formats),
        timeout_seconds=settings.decode_seconds,
        memory_bytes=settings.decode_memory_bytes,
        workers=settings.decode_processes or None,
        images_per_process=settings.decode_images_per_process,
    )


def _report(proof: SecretProof, refusals: Refusals, readiness: Readiness) -> None:
    """Tell of refusals: not ready while they may be our own fault, then a warning a minute."""
    if doubt := proof.doubt:
        readiness.block("secret", doubt)
    else:
        readiness.clear("secret")
    if refused := refusals.due(time.monotonic()):
        log.warning("records refused", reason=refused)
