"""Answers of Kafka's admin client, with every error code looked at.

aiokafka 0.14 drops some: its `list_consumer_group_offsets` never looks at the top-level error of
OffsetFetch (NOT_COORDINATOR and the like) and returns an empty answer, which reads as "this group
has committed nothing". Here an answer is either usable, or `Unanswered` (asking again may heal
it), or a `FatalError` with an exit code of its own.
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerResponseError,
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    for_code,
)
from aiokafka.protocol.api import Request
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.coordination import FindCoordinatorRequest

from imagelane.exits import ExitCode, FatalError

RETRY_SECONDS: Final = 0.2

# Kafka's numbers of the errors that its own clients retry, and that an answer here can have.
_SET_FOR_TOPIC: Final = 1  # a config's source: Kafka's DYNAMIC_TOPIC_CONFIG
_RETRIABLE: Final = frozenset({3, 5, 6, 7, 9, 13, 14, 15, 16, 41, 56, 74, 75, 88, 89, 100})
_ACCESS: Final = frozenset({29, 30, 31, 33, 34, 53, 54, 58, 65, 66})
_NO_SUCH_GROUP: Final = 69
_NAMES: Final = {  # that aiokafka does not know, or by another name
    13: "NETWORK_EXCEPTION",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    88: "UNSTABLE_OFFSET_COMMIT",
    89: "THROTTLING_QUOTA_EXCEEDED",
    100: "UNKNOWN_TOPIC_ID",
}
_DENIED: Final = (AuthenticationFailedError, AuthenticationMethodNotSupported)
# Retriable in fact; aiokafka marks its own timeouts otherwise.
_TIMEOUTS: Final = (KafkaTimeoutError, KafkaUnavailableError)
_UNREADABLE: Final = (ValueError, TypeError, AssertionError, NotImplementedError, struct.error)

Answer = TypeVar("Answer")


class Unanswered(Exception):
    """No usable answer so far; the message has the reason. Asking again may heal it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A position that a group has committed, with the metadata of that commit."""

    offset: int
    metadata: str


def raise_for_code(code: int, doing: str) -> None:
    """Look at one error code of an answer.

    Raises:
        Unanswered: asking again may heal it.
        FatalError: `ACCESS`: a right is missing; `PROTOCOL`: any other refusal.
    """
    if code:
        raise _fault(code, f"{doing}: {_error_name(code)}")


async def asked(answer: Awaitable[Answer], doing: str) -> Answer:
    """Return the answer of one call of the client, with its errors translated.

    Raises:
        Unanswered: no broker answered, or with an error that a retry may heal.
        FatalError: `ACCESS` or `PROTOCOL`.
    """
    try:
        return await answer
    except BrokerResponseError as exc:
        raise _fault(exc.errno, f"{doing}: {exc}") from exc
    except _DENIED as exc:
        raise FatalError(ExitCode.ACCESS, f"access: {doing}: {exc}") from exc
    except KafkaError as exc:
        if exc.retriable or isinstance(exc, _TIMEOUTS):
            raise Unanswered(f"{doing}: {exc}") from exc
        raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: {exc}") from exc
    except (TimeoutError, OSError) as exc:
        raise Unanswered(f"{doing}: {exc!r}") from exc
    except _UNREADABLE as exc:
        raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: {exc!r}") from exc


async def retried(
    ask: Callable[[], Awaitable[Answer]],
    seconds: float,
    on_retry: Callable[[Unanswered], None] = lambda _: None,
) -> Answer:
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


async def committed_offset(
    admin: AIOKafkaAdminClient, group_id: str, partition: TopicPartition
) -> Committed | None:
    """Return what the group has committed for a partition, or None where it has nothing.

    None means: the coordinator answered without an error, and has no offset of that partition.

    Raises:
        Unanswered: the coordinator moves, loads or does not answer.
        FatalError: `ACCESS` or `PROTOCOL`.
    """
    doing = f"reading the position of group {group_id}"
    found = await asked(admin._send_request(FindCoordinatorRequest(group_id, 0)), doing)
    raise_for_code(found.error_code, doing)
    return await offset_told(
        lambda request: admin._send_request(request, found.coordinator_id), group_id, partition
    )


async def offset_told(
    send: Callable[[Any], Awaitable[Any]], group_id: str, partition: TopicPartition
) -> Committed | None:
    """Return what one broker, to which `send` sends, tells as the group's position; see above."""
    doing = f"reading the position of group {group_id}"
    answer = await asked(send(_OffsetFetch(group_id, partition)), doing)
    # A group that nobody knows: an offset of -1, an empty list or an error, as the broker likes.
    if answer.error_code == _NO_SUCH_GROUP:
        return None
    raise_for_code(answer.error_code, doing)
    for topic, partitions in answer.topics:
        for number, offset, metadata, code in partitions:
            if (topic, number) == partition:
                raise_for_code(code, doing)
                return Committed(offset=offset, metadata=metadata or "") if offset >= 0 else None
    return None


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
    """OffsetFetch of one partition, in the version whose top-level error we look at."""

    API_KEY = OffsetFetchRequest_v3.API_KEY

    def __init__(self, group_id: str, partition: TopicPartition) -> None:
        self._arguments = group_id, [(partition.topic, [partition.partition])]

    def build(self, request_struct_class: type[OffsetFetchRequest_v3]) -> OffsetFetchRequest_v3:
        return request_struct_class(*self._arguments)


def _fault(code: int, message: str) -> Exception:
    if code in _ACCESS:
        return FatalError(ExitCode.ACCESS, f"access: {message}")
    if code in _RETRIABLE:
        return Unanswered(message)
    return FatalError(ExitCode.PROTOCOL, f"protocol: {message}")


def _error_name(code: int) -> str:
    known = for_code(code)
    name = _NAMES.get(code) or (known.message if known.errno == code else "an unknown error")
    return f"{name} ({code})"
