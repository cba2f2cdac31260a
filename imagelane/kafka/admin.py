"""Answers of Kafka's admin client, with every error code checked.

aiokafka 0.14 drops some: its `list_consumer_group_offsets` ignores the top-level error of
OffsetFetch (NOT_COORDINATOR and the like) and returns an empty answer, which reads as "this group
has committed nothing". Here an answer is usable, or an error of `imagelane.kafka.errors`.
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.api import Request
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.coordination import FindCoordinatorRequest

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.errors import NO_SUCH_GROUP, Unanswered, raise_for_code, translated
from imagelane.position import Position

RETRY_SECONDS: Final = 0.2

_SET_FOR_TOPIC: Final = 1  # a config's source: Kafka's DYNAMIC_TOPIC_CONFIG
# aiokafka's errors for an answer that it cannot parse, and for no common version.
_UNREADABLE: Final = (ValueError, TypeError, AssertionError, NotImplementedError, struct.error)

Reply = TypeVar("Reply")


async def translated_call(call: Awaitable[Reply], doing: str) -> Reply:
    """Await one call of the client; its errors become `Unanswered` or `FatalError`."""
    try:
        with translated(doing):
            return await call
    except _UNREADABLE as exc:
        raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: {exc!r}") from exc


async def retried(
    ask: Callable[[], Awaitable[Reply]],
    seconds: float,
    on_retry: Callable[[Unanswered], None] = lambda _: None,
) -> Reply:
    """Ask again until there is a usable answer, for at most `seconds`.

    Raises:
        Unanswered: the last one, when the time is over; any other error of `ask` is not retried.
    """
    give_up, last = time.monotonic() + seconds, None
    while True:
        try:
            async with asyncio.timeout(max(0.0, give_up - time.monotonic())):
                return await ask()
        except TimeoutError as exc:  # of this block: `translated_call` translates the client's
            raise last or Unanswered(f"no answer in {seconds:g} s") from exc
        except Unanswered as exc:
            last = exc
            if time.monotonic() + RETRY_SECONDS >= give_up:
                raise
            on_retry(exc)
        await asyncio.sleep(RETRY_SECONDS)


async def committed_offsets(
    admin: AIOKafkaAdminClient, group_id: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Position]:
    """Return the group's position in each of these partitions that it has one in.

    A partition is left out only if the coordinator answered without an error and has no offset of
    it.

    Raises:
        Unanswered: the coordinator moves, loads or does not answer.
        FatalError: `ACCESS` or `PROTOCOL`.
    """
    coordinator = await coordinator_of(admin, group_id, _reading_position(group_id))
    return await fetch_positions(
        lambda request: admin._send_request(request, coordinator), group_id, partitions
    )


async def coordinator_of(admin: AIOKafkaAdminClient, group_id: str, doing: str) -> int:
    """Return the node id of the group's coordinator; `doing` begins an error's message."""
    request = FindCoordinatorRequest(group_id, 0)
    answer = await translated_call(admin._send_request(request), doing)
    raise_for_code(answer.error_code, doing)
    return int(answer.coordinator_id)


async def fetch_positions(
    send: Callable[[Any], Awaitable[Any]], group_id: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Position]:
    """Return the group's positions by one broker, reached by `send`; see `committed_offsets`."""
    doing = _reading_position(group_id)
    answer = await translated_call(send(_OffsetFetch(group_id, partitions)), doing)
    # Brokers answer for an unknown group with an offset of -1, an empty list or an error.
    if answer.error_code == NO_SUCH_GROUP:
        return {}
    raise_for_code(answer.error_code, doing)
    found: dict[TopicPartition, Position] = {}
    for topic, answers in answer.topics:
        for number, offset, metadata, code in answers:
            raise_for_code(code, doing)
            if offset >= 0:
                found[TopicPartition(topic, number)] = Position(
                    offset=offset, metadata=metadata or ""
                )
    return found


def _reading_position(group_id: str) -> str:
    return f"reading the position of group {group_id}"


async def topic_partitions(admin: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """Return the partitions of every topic that we may see, as the broker describes them.

    All topics, since to ask for one by its name can create it. A topic with an error (it is just
    being made or deleted, or we may not see it) is left out.
    """
    topics = await translated_call(admin.describe_topics(), "listing the topics")
    return {t["topic"]: t["partitions"] for t in topics if not t["error_code"]}


async def topic_configs(admin: AIOKafkaAdminClient, topic: str) -> Mapping[str, str]:
    """Return the settings of a topic, defaults included."""
    return {entry[0]: entry[1] for entry in await _config_entries(admin, topic)}


async def own_configs(admin: AIOKafkaAdminClient, topic: str) -> Mapping[str, str]:
    """Return the settings that are set for the topic itself."""
    entries = await _config_entries(admin, topic)
    return {name: value for name, value, _, source, *_ in entries if source == _SET_FOR_TOPIC}


async def _config_entries(admin: AIOKafkaAdminClient, topic: str) -> list[tuple[Any, ...]]:
    doing = f"reading the settings of topic {topic}"
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    responses = await translated_call(admin.describe_configs([resource]), doing)
    for response in responses:
        for code, _, _, name, entries in response.resources:
            if name == topic:
                raise_for_code(code, doing)
                return list(entries)
    raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: the answer is about none")


class _OffsetFetch(Request[OffsetFetchRequest_v3]):  # type: ignore[misc]  # no types
    """OffsetFetch v3, whose top-level error is checked here."""

    API_KEY = OffsetFetchRequest_v3.API_KEY

    def __init__(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        by_topic: dict[str, list[int]] = {}
        for partition in partitions:
            by_topic.setdefault(partition.topic, []).append(partition.partition)
        self._arguments = group_id, list(by_topic.items())

    def build(self, request_struct_class: type[OffsetFetchRequest_v3]) -> OffsetFetchRequest_v3:
        return request_struct_class(*self._arguments)
