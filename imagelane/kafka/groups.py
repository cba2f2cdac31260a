"""The members of a consumer group, and the partitions of each."""

import struct
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.admin import coordinator_of, translated_call
from imagelane.kafka.errors import NO_SUCH_GROUP, raise_for_code

UNKNOWN: Final = "Dead"  # Kafka's state of a group that the coordinator does not know


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a group; `instance_id` is its static name, if any."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group as its coordinator describes it; `state` is Kafka's name."""

    group_id: str
    state: str
    members: tuple[Member, ...]


async def describe_group(admin: AIOKafkaAdminClient, group_id: str) -> Group:
    """Return the group; its state is `UNKNOWN` if the coordinator does not know it.

    Raises:
        Unanswered: the coordinator moves, loads or does not answer.
        FatalError: `ACCESS`: we may not describe the group; `PROTOCOL`.
    """
    doing = f"describing group {group_id}"
    coordinator = await coordinator_of(admin, group_id, doing)
    request = _DescribeGroups(group_id)
    answer = await translated_call(admin._send_request(request, coordinator), doing)
    for code, name, state, _, _, members, _ in answer.groups:
        if name != group_id:
            continue
        if code == NO_SUCH_GROUP:
            return Group(group_id=group_id, state=UNKNOWN, members=())
        raise_for_code(code, doing)
        return Group(
            group_id=group_id, state=state, members=tuple(_member(doing, *m) for m in members)
        )
    raise FatalError(ExitCode.PROTOCOL, f"protocol: {doing}: the answer is about none")


def _member(
    doing: str,
    member_id: str,
    instance_id: str | None,
    client_id: str,
    host: str,
    _metadata: bytes,
    assignment: bytes,
) -> Member:
    """Read a member; while the group rebalances its assignment is empty."""
    try:
        partitions = (
            ConsumerProtocolMemberAssignment.decode(assignment).partitions() if assignment else []
        )
    except (ValueError, struct.error) as exc:
        reason = f"protocol: {doing}: the assignment of {member_id} cannot be read: {exc!r}"
        raise FatalError(ExitCode.PROTOCOL, reason) from exc
    return Member(
        member_id=member_id,
        instance_id=instance_id,
        client_id=client_id,
        host=host,
        partitions=tuple(sorted(partitions)),
    )


class _DescribeGroupsResponse_v4(Response):  # type: ignore[misc]  # no types
    API_KEY = 15
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String("utf-8")),
                ("state", String("utf-8")),
                ("protocol_type", String("utf-8")),
                ("protocol", String("utf-8")),
                (
                    "members",
                    Array(
                        ("member_id", String("utf-8")),
                        ("group_instance_id", String("utf-8")),
                        ("client_id", String("utf-8")),
                        ("client_host", String("utf-8")),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _DescribeGroupsRequest_v4(RequestStruct):  # type: ignore[misc]  # no types
    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = _DescribeGroupsResponse_v4
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _DescribeGroups(Request[_DescribeGroupsRequest_v4]):  # type: ignore[misc]  # no types
    """DescribeGroups v4, the first version with static names; aiokafka lacks it."""

    API_KEY = 15

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(
        self, request_struct_class: type[_DescribeGroupsRequest_v4]
    ) -> _DescribeGroupsRequest_v4:
        return request_struct_class([self._group_id], False)
