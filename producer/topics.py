"""The four topics: how they should be, and how existing ones differ.

`fix` alone changes an existing topic, and its settings alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from imagelane.kafka.admin import own_configs, topic_configs, topic_partitions
from producer.connection import administration, answering
from producer.settings import ProducerSettings

# LogAppendTime: freshness is judged by the broker's clock, not by the producer's claim.
TIMESTAMP_TYPE: Final = "message.timestamp.type"
PARTITIONS: Final = "partitions"
# The broker unpacks compressed batches and checks their size, so no consumer has to unpack one.
_COMPRESSION: Final = "compression.type"
_MAX_BYTES: Final = "max.message.bytes"
_MIB: Final = 1024 * 1024
_THIRTY_DAYS_MS: Final = 30 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    """A topic as it should be. `partitions` or `replication` None is not compared."""

    name: str
    partitions: int | None
    replication: int | None
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting that is not as it should be."""

    setting: str
    wanted: str
    found: str


class TopicState(StrEnum):
    CREATED = "created"
    EXISTS = "exists"
    FIXED = "fixed"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicReport:
    name: str
    state: TopicState
    differences: tuple[Difference, ...] = ()


def topic_plans(
    settings: ProducerSettings, *, partitions: int | None, replication: int | None
) -> tuple[TopicPlan, ...]:
    """Return how ingest, queries, results and dead letters should be; `partitions`: one per GPU."""
    # Two in-sync replicas, or `acks=all` is satisfied by the leader alone.
    durable = {"min.insync.replicas": "2"} if replication and replication > 2 else {}
    ingest = {
        TIMESTAMP_TYPE: "LogAppendTime",
        _COMPRESSION: "uncompressed",
        _MAX_BYTES: str(_MIB),
    }
    results = {_MAX_BYTES: str(_MIB)}
    # Twice the ingest topic's: a dead letter is a record with its reason added.
    dead_letters = {_MAX_BYTES: str(2 * _MIB), "retention.ms": str(_THIRTY_DAYS_MS)}
    return tuple(
        TopicPlan(name=name, partitions=count, replication=replication, configs=configs | durable)
        for name, count, configs in (
            (settings.ingest_topic, partitions, ingest),
            (settings.queries_topic, partitions, ingest),
            (settings.results_topic, partitions, results),
            (settings.dlq_topic, 1, dead_letters),
        )
    )


def differences(plan: TopicPlan, found: Mapping[str, str]) -> tuple[Difference, ...]:
    """Return the differences; `found` has the counts as well."""
    counts = {PARTITIONS: plan.partitions, "replication": plan.replication}
    wanted = {**plan.configs, **{name: str(count) for name, count in counts.items() if count}}
    return tuple(
        Difference(setting=name, wanted=value, found=have)
        for name, value in wanted.items()
        if (have := found.get(name, "nothing")) != value
    )


async def ensure_topics(
    settings: ProducerSettings, plans: tuple[TopicPlan, ...], *, fix: bool = False
) -> list[TopicReport]:
    """Create the topics that do not exist, and compare those that do.

    `fix` sets the settings of those that differ; partitions and replicas stay as they are.

    Raises:
        FatalError: no broker answers, or one refuses to create or change a topic.
    """
    async with administration(settings) as admin, answering(settings, "creating the topics"):
        existing = await topic_partitions(admin)
        reports = [await _ensure(admin, plan, existing.get(plan.name)) for plan in plans]
        if not fix:
            return reports
        return [await _fixed(admin, *each) for each in zip(plans, reports, strict=True)]


async def _ensure(
    admin: AIOKafkaAdminClient, plan: TopicPlan, existing: list[dict[str, Any]] | None
) -> TopicReport:
    if existing is None:
        await _create(admin, plan)
        return TopicReport(name=plan.name, state=TopicState.CREATED)
    counts = {
        PARTITIONS: str(len(existing)),
        "replication": str(len(existing[0]["replicas"])),
    }
    different = differences(plan, {**await topic_configs(admin, plan.name), **counts})
    state = TopicState.DIFFERS if different else TopicState.EXISTS
    return TopicReport(name=plan.name, state=state, differences=different)


async def _fixed(admin: AIOKafkaAdminClient, plan: TopicPlan, report: TopicReport) -> TopicReport:
    """Set the plan's settings if the report says that one of them differs.

    The request replaces all settings of the topic, so it has the topic's other ones as well.
    """
    different = tuple(d for d in report.differences if d.setting in plan.configs)
    if not different:
        return report
    kept = await own_configs(admin, plan.name)
    resource = ConfigResource(ConfigResourceType.TOPIC, plan.name, configs={**kept, **plan.configs})
    for response in await admin.alter_configs([resource]):
        for code, message, *_ in response.resources:
            if code:
                error = for_code(code)
                raise error(f"{plan.name}: {message or error.description}")
    left = tuple(d for d in report.differences if d not in different)
    return TopicReport(name=plan.name, state=TopicState.FIXED, differences=left)


async def _create(admin: AIOKafkaAdminClient, plan: TopicPlan) -> None:
    topic = NewTopic(
        name=plan.name,
        num_partitions=plan.partitions or 1,
        replication_factor=plan.replication or 1,
        topic_configs=dict(plan.configs),
    )
    response = await admin.create_topics([topic])
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        # Two deployments that start at once: the other one created it.
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {message[0] if message and message[0] else error.description}")
