"""Answers of Kafka's admin client, with every error code looked at.

aiokafka 0.14 drops some: its `list_consumer_group_offsets` never looks at the top-level error of
OffsetFetch (NOT_COORDINATOR and the like) and returns an empty answer, which reads as "this group
has committed nothing". Here an answer is usable, or an error of `imagelane.kafka.errors`.
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.api import Request
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.coordination import FindCoordinatorRequest

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.errors import NO_SUCH_GROUP, Unanswered, raise_for_code, translated

RETRY_SECONDS: Final = 0.2

_SET_FOR_TOPIC: Final = 1  # a config's source: Kafka's DYNAMIC_TOPIC_CONFIG
# What aiokafka raises where an answer does not hold what it says, or no version is spoken by both.
_UNREADABLE: Final = (ValueError, TypeError, AssertionError, NotImplementedError, struct.error)

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A position that a group has committed, with the metadata of that commit."""

    offset: int
    metadata: str


async def asked(answer: Awaitable[Reply], doing: str) -> Reply:
    """Return the answer of one call of the client, with its errors translated."""
    try:
        with translated(doing):
            return await answer
    except _UNREADABLE as exc:
        raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: {exc!r}") from exc


async def retried(
    ask: Callable[[], Awaitable[Reply]],
    seconds: float,
    on_retry: Callable[[Unanswered], None] = lambda _: None,
) -> Reply:
    """Ask again while there is no usable answer, `seconds` at most.

    Raises:
        Unanswered: the last one, when the time is over; of anything else that `ask` raises the
            first.
    """
    give_up, last = time.monotonic() + seconds, None
    while True:
        try:
            async with asyncio.timeout(max(0.0, give_up - time.monotonic())):
                return await ask()
        except TimeoutError as exc:  # of this block: `asked` translates those of the client
            raise last or Unanswered(f"no answer in {seconds:g} s") from exc
        except Unanswered as exc:
            last = exc
            if time.monotonic() + RETRY_SECONDS >= give_up:
                raise
            on_retry(exc)
        await asyncio.sleep(RETRY_SECONDS)


async def committed_offsets(
    admin: AIOKafkaAdminClient, group_id: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Committed]:
    """Return what the group has committed for these partitions, without those where it has nothing.

    A partition is left out only if the coordinator answered without an error and has no offset of
    it.

    Raises:
        Unanswered: the coordinator moves, loads or does not answer.
        FatalError: `ACCESS` or `PROTOCOL`.
    """
    doing = f"reading the position of group {group_id}"
    coordinator = await asked(admin._send_request(FindCoordinatorRequest(group_id, 0)), doing)
    raise_for_code(coordinator.error_code, doing)
    return await offsets_told(
        lambda request: admin._send_request(request, coordinator.coordinator_id),
        group_id,
        partitions,
    )


async def offsets_told(
    send: Callable[[Any], Awaitable[Any]], group_id: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Committed]:
    """Return what one broker, to which `send` sends, tells as the group's positions; see above."""
    doing = f"reading the position of group {group_id}"
    answer = await asked(send(_OffsetFetch(group_id, partitions)), doing)
    # A group that nobody knows: an offset of -1, an empty list or an error, as the broker likes.
    if answer.error_code == NO_SUCH_GROUP:
        return {}
    raise_for_code(answer.error_code, doing)
    found: dict[TopicPartition, Committed] = {}
    for topic, answers in answer.topics:
        for number, offset, metadata, code in answers:
            raise_for_code(code, doing)
            if offset >= 0:
                found[TopicPartition(topic, number)] = Committed(
                    offset=offset, metadata=metadata or ""
                )
    return found


async def topic_partitions(admin: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """Return the partitions of every topic that we may see, as the broker describes them.

    All topics, since to ask for one by its name can create it. A topic whose description has an
    error (it is just being made or deleted, or we may not see it) is left out.

    Raises:
        Unanswered, FatalError: see `asked`.
    """
    topics = await asked(admin.describe_topics(), "listing the topics")
    return {t["topic"]: t["partitions"] for t in topics if not t["error_code"]}


async def topic_configs(admin: AIOKafkaAdminClient, topic: str) -> Mapping[str, str]:
    """Return the settings of a topic.

    Raises:
        Unanswered: see `asked`.
        FatalError: `ACCESS`: we may not describe the topic's configs; `PROTOCOL`.
    """
    return {entry[0]: entry[1] for entry in await _config_entries(admin, topic)}


async def own_configs(admin: AIOKafkaAdminClient, topic: str) -> Mapping[str, str]:
    """Return the settings that were made for the topic itself; raises as `topic_configs`."""
    entries = await _config_entries(admin, topic)
    return {name: value for name, value, _, source, *_ in entries if source == _SET_FOR_TOPIC}


async def _config_entries(admin: AIOKafkaAdminClient, topic: str) -> list[tuple[Any, ...]]:
    doing = f"reading the settings of topic {topic}"
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    responses = await asked(admin.describe_configs([resource]), doing)
    for response in responses:
        for code, _, _, name, entries in response.resources:
            if name == topic:
                raise_for_code(code, doing)
                return list(entries)
    raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: the answer is about none")


class _OffsetFetch(Request[OffsetFetchRequest_v3]):  # type: ignore[misc]  # no types
    """OffsetFetch in the one version whose top-level error is looked at here."""

    API_KEY = OffsetFetchRequest_v3.API_KEY

    def __init__(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        by_topic: dict[str, list[int]] = {}
        for partition in partitions:
            by_topic.setdefault(partition.topic, []).append(partition.partition)
        self._arguments = group_id, list(by_topic.items())

    def build(self, request_struct_class: type[OffsetFetchRequest_v3]) -> OffsetFetchRequest_v3:
        return request_struct_class(*self._arguments)
