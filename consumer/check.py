"""`python -m consumer check`: checks settings, broker, topics, device and models."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal

from consumer import parts
from consumer.broker.cluster import NO_QUERIES_TOPIC
from consumer.image_sources import open_sources
from consumer.probe import probe
from consumer.runtime.alive_file import AliveFile
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import say

Check = Callable[[ConsumerSettings], Awaitable[str]]
_MODELS_NEED: Final = frozenset({"decoder", "device", "CLIP", "BLIP"})


async def run(settings: ConsumerSettings) -> None:
    """Run all checks, also after a fault, and print a line for each.

    Raises:
        FatalError: the exit code of the first fault.
    """
    first: ExitCode | None = None
    checks: dict[str, Check] = {
        "settings": _settings,
        "decoder": _decoder,
        "broker and topics": _topics,
        "device": _device,
        "CLIP": lambda its: _checkpoint(its.clip_model, its.clip_revision_or_default, "clip"),
        "BLIP": lambda its: _checkpoint(its.blip_model, its.blip_revision_or_default, "blip"),
        "models": _models,
    }
    faulty: set[str] = set()
    for name, check in checks.items():
        if name == "models" and faulty & _MODELS_NEED:
            continue  # the check would print the same fault again
        try:
            say(f"ok     {name}: {await check(settings)}")
        except FatalError as fault:
            say(f"fault  {name}: {fault}")
            first = first or fault.code
            faulty.add(name)
    if first:
        raise FatalError(first, "check: not ready; see the lines marked fault")


async def _settings(settings: ConsumerSettings) -> str:
    AliveFile.open(settings.alive_file)
    async with open_sources(settings) as sources:
        await sources.ready()
    # The fingerprints can be compared with `imagelane settings` of the producer.
    prints = settings.fingerprints.items()
    key_ids = ", ".join(f"{key_id} (fingerprint {fingerprint})" for key_id, fingerprint in prints)
    roots = ", ".join(settings.file_roots) or "none, so file: is forbidden"
    buckets = ", ".join(settings.s3_buckets) or "none, so s3: is forbidden"
    hosts = http_hosts(settings)
    return f"keys {key_ids}; file roots: {roots}; s3 buckets: {buckets}; http hosts: {hosts}"


def http_hosts(settings: ConsumerSettings) -> str:
    """Return the hosts that `http:` and `https:` references may name, and the way to them."""
    hosts = [*settings.allowed_hosts, *["all public ones"] * settings.allow_public_hosts]
    if not hosts:
        return "none, so http: and https: are forbidden"
    networks = (
        f", also at {', '.join(settings.allowed_networks)}" if settings.allowed_networks else ""
    )
    proxy = f", through {settings.egress_proxy}" if settings.egress_proxy else ""
    return ", ".join(hosts) + networks + proxy


async def _decoder(settings: ConsumerSettings) -> str:
    settings = settings.model_copy(update={"decode_processes": 1})
    async with parts.open_decoder(settings) as decoder:
        lacks = decoder.lacks
    return f"{', '.join(settings.decode_formats)} in processes of their own{cage(lacks)}"


def cage(lacks: tuple[str, ...]) -> str:
    """Return a note of the means to cage decoding processes that this machine lacks, or ''."""
    return f"; this machine has no {' and no '.join(lacks)} to cage them" if lacks else ""


async def _topics(settings: ConsumerSettings) -> str:
    hasty = settings.model_copy(update={"broker_wait_seconds": 0})
    async with parts.open_cluster(hasty) as cluster:
        ingest, *_ = topics = await cluster.topics()
        queries, brokers = await cluster.queries(), cluster.brokers
    topics += [queries] if queries else []
    names = ", ".join(f"{t.name} ({t.partitions} partitions)" for t in topics)
    freshness = (
        "signatures are held against the append time"
        if ingest.append_time
        else f"{ingest.name} has CreateTime: signatures are held against our own clock; "
        "message.timestamp.type=LogAppendTime is better"
    )
    read = [ingest, queries] if queries else [ingest]
    faults = {t.name: t.compression_fault(allowed=settings.allow_compressed) for t in read}
    compression = "".join(f"; {name}: {fault}" for name, fault in faults.items() if fault)
    absent = "" if queries else f"; {NO_QUERIES_TOPIC}"
    return f"{brokers}: {names}; {freshness}{compression}{absent}"


async def _device(settings: ConsumerSettings) -> str:
    from consumer.inference.models.device import choose_device

    return str(await asyncio.to_thread(choose_device, settings.device, settings.dtype))


async def _checkpoint(model: str, revision: str, kind: Literal["clip", "blip"]) -> str:
    from consumer.inference.models.checkpoint import inspect

    identity = (await asyncio.to_thread(inspect, model, revision, kind)).identity
    movable = revision != identity.revision and not Path(model).is_dir()  # noqa: ASYNC240
    pin = f"; {revision} is no commit, and its owner can move it: pin this one" if movable else ""
    return f"{identity.model} at {identity.revision}{pin}"


async def _models(settings: ConsumerSettings) -> str:
    models = await asyncio.to_thread(parts.open_models, settings)
    one_process = settings.model_copy(update={"decode_processes": 1})
    async with (
        parts.open_engine(settings, models) as engine,
        parts.open_decoder(one_process) as decoder,
    ):
        found = await probe(engine, decoder, models.resizes)
        return f"{found}; CLIP takes up to {engine.queues['CLIP'].size.limit} at once"
