"""Starts the parts of the consumer in order and stops them: the only place that wires them."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

import structlog

from consumer import parts
from consumer.broker.group import KafkaStream
from consumer.image_sources import open_sources
from consumer.images.decoding.confinement import forbid_inspection
from consumer.partition.assigned import PartitionWorkers
from consumer.probe import probe
from consumer.runtime import limits
from consumer.runtime.alive_file import AliveFile
from consumer.runtime.live_line import LiveLine
from consumer.runtime.readiness import Readiness
from consumer.runtime.shutdown import COMMIT_SECONDS, Shutdown
from consumer.runtime.stop import StopRequest
from consumer.runtime.watchdog import watch
from consumer.settings import ConsumerSettings
from consumer.telemetry.state import Components, ProcessState
from consumer.telemetry.tracing import open_tracing
from consumer.worker_maker import WorkerMaker, open_budgets

log = structlog.get_logger()

POLL_SECONDS: Final = 0.1  # also the longest delay of a stop


async def run(settings: ConsumerSettings, stop: StopRequest, live: LiveLine | None) -> None:
    """Consume until a stop is asked for; return, or end the process, STOP_SECONDS + 2 later.

    Raises:
        FatalError: bare or in an exception group.
    """
    start = time.monotonic()
    shutdown = Shutdown(is_json=settings.log_format == "json")
    state = ProcessState(readiness=Readiness(), stop=stop)
    alive = _prepare_process(settings)
    # torch takes seconds to import: faults of the broker or of a topic are reported meanwhile.
    opening = asyncio.create_task(asyncio.to_thread(parts.open_models, settings))
    async with (
        shutdown.bound("health", _health(state, settings)),
        shutdown.bound("sources", open_sources(settings)) as sources,
        shutdown.bound("cluster", parts.open_cluster(settings)) as cluster,
        shutdown.bound("tracing", open_tracing(settings.tracing, settings.group_id)) as trace,
    ):
        group = await parts.open_group(settings, cluster, state.readiness)
        async with (
            shutdown.bound("decoder", parts.open_decoder(settings)) as decoder,
            shutdown.bound("engine", parts.open_engine(settings, await opening)) as engine,
            shutdown.bound("group", group) as stream,
            asyncio.TaskGroup() as tasks,
        ):
            await sources.ready()
            models = opening.result()
            log.info("models tried", found=await probe(engine, decoder, models.resizes))
            write = parts.make_encoder(settings, models).write
            budget, queries_budget = open_budgets(settings)
            preparation = parts.make_preparation(settings, sources, decoder, models, budget)
            maker = WorkerMaker(settings, preparation, queries_budget, engine, write, trace)
            workers = PartitionWorkers(maker.make_worker, tasks, settings.stop_seconds)
            state.components = components = Components(
                tally=maker.tally,
                workers=workers,
                stream=stream,
                engine=engine,
                decoder=decoder,
                budgets={"backlog": budget, "queries": queries_budget},
                device_memory=models.device_memory,
            )
            stop.stop_in_order(lambda: shutdown.begin(settings.stop_seconds))
            background = _start_background(tasks, settings, components, state, alive, live)
            stream.join(workers)
            log.info("ready", seconds=round(time.monotonic() - start, 3))
            await _consume(stream, workers, maker, state, shutdown)
            for task in background:
                task.cancel()
    log.info("stopped")


def _prepare_process(settings: ConsumerSettings) -> AliveFile | None:
    """Set the limits of the whole process, and return its alive file."""
    alive = AliveFile.open(settings.alive_file)
    limits.collect_seldom()
    forbid_inspection()
    limits.raise_descriptor_limit()
    return alive


def _health(state: ProcessState, settings: ConsumerSettings) -> AbstractAsyncContextManager[None]:
    if settings.health_port is None:
        return nullcontext()
    # Imported here: it takes 0.1 to 0.2 s, which a start without the port saves.
    from consumer.telemetry.health import open_port

    return open_port(state, host=settings.health_host, port=settings.health_port)


def _start_background(
    tasks: asyncio.TaskGroup,
    settings: ConsumerSettings,
    components: Components,
    state: ProcessState,
    alive: AliveFile | None,
    live: LiveLine | None,
) -> list[asyncio.Task[None]]:
    """Start the tasks beside the records: the device, the watchdog, a terminal's live line."""
    watchdog = watch(
        parts.watch_bounds(settings),
        components.snapshot,
        state.readiness,
        end_loop_seconds=2 * settings.session_timeout_seconds + settings.stuck_seconds,
        liveness=state.liveness,
        alive=alive,
        is_json=settings.log_format == "json",
    )
    follow = [live.follow(components.waiting)] if live else []
    return [tasks.create_task(each) for each in (components.engine.run(), watchdog, *follow)]


async def _consume(
    stream: KafkaStream,
    workers: PartitionWorkers,
    maker: WorkerMaker,
    state: ProcessState,
    shutdown: Shutdown,
) -> None:
    """Hand records to the workers until a stop is asked for, and let them finish."""
    try:
        while not state.stop.asked:
            for record in await stream.poll(workers.capacity(), POLL_SECONDS):
                workers.take(record)
            await asyncio.sleep(0)  # a poll of prefetched records does not yield to the loop
            stream.rewind(workers.rewinds())
            _report(maker, state.readiness)
    except BaseException:
        shutdown.begin()
        raise
    log.info("stopping")
    await workers.stop(shutdown.finish_seconds, COMMIT_SECONDS)


def _report(maker: WorkerMaker, readiness: Readiness) -> None:
    """Report refusals: not ready while our secret may be wrong, a warning a minute later on."""
    if doubt := maker.proof.doubt:
        readiness.block("secret", doubt)
    else:
        readiness.clear("secret")
    if refused := maker.refusals.due(time.monotonic()):
        log.warning("records refused", reason=refused)
