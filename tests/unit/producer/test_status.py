"""What `imagelane status` shows: every part, and every part that is not known."""

import json
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from imagelane.exits import ExitCode
from imagelane.kafka.groups import Group, Member
from producer.cli.status_command import document, table
from producer.settings import StatusSettings
from producer.status import DeadLetters, Fault, LastResult, PartitionStatus, Status

NOW = 1_790_000_000.0
GPU = Member(
    member_id="gpu-0-8d1f",
    instance_id="gpu-0",
    client_id="imagelane",
    host="/10.0.0.7",
    partitions=(TopicPartition("image.ingest", 0), TopicPartition("image.queries", 0)),
)
SPARE = Member(
    member_id="imagelane-77c0ffee-1b2c-4d3e-8f90-a1b2c3d4e5f6",
    instance_id=None,
    client_id="imagelane",
    host="/10.0.0.8",
    partitions=(),
)
FAULT = Fault(code=ExitCode.ACCESS, reason="access: no right")


def partition(number: int, member: str | None, **changes: int | bool | None) -> PartitionStatus:
    told: dict[str, int | bool | None] = {
        "position": 400,
        "end": 512,
        "backlog": 12,
        "is_exact": True,
        "open": 3,
        "withheld": 0,
    }
    return PartitionStatus(
        topic="image.ingest",
        partition=number,
        member=member,
        **(told | changes),  # type: ignore[arg-type]
    )


ALL = Status(
    group=Group(group_id="imagelane", state="Stable", members=(GPU, SPARE)),
    partitions=(
        partition(0, "gpu-0"),
        partition(1, None, position=None, backlog=512, is_exact=False, open=0),
    ),
    last_result=LastResult(
        topic="image.results", partition=0, offset=411, appended_at=NOW - 3, id="a1", status="ok"
    ),
    dead_letters=DeadLetters(
        since=NOW - 86_400, by_code={"not_found": 10, "stale": 2}, is_cut=False
    ),
)
UNKNOWN = Status(group=FAULT, partitions=FAULT, last_result=FAULT, dead_letters=FAULT)


@pytest.fixture
def settings(secret: str) -> StatusSettings:
    return StatusSettings.from_env({"SECRET_API_KEY": secret})


def test_table(settings: StatusSettings) -> None:
    """Columns line up; a total that may count markers says so; a spare member is no error."""
    assert table(ALL, settings, NOW) == [
        "group imagelane: stable, 2 members",
        "member              client     host      partitions",
        "gpu-0               imagelane  10.0.0.7  image.ingest[0] image.queries[0]",
        "imagelane-77c0ffee  imagelane  10.0.0.8  none (spare)",
        "partition        member  position  end  backlog  open",
        "image.ingest[0]  gpu-0        400  512       12     3",
        "image.ingest[1]  none        none  512    <=512     0",
        "all                                       <=524     3",
        "last result: ok, 3 s ago, image.results[0]@411, id a1",
        "dead letters since 2026-09-20 14:13 UTC: 12 (not_found 10, stale 2)",
    ]


def test_what_is_not_known_never_looks_like_nothing(settings: StatusSettings) -> None:
    """A part without an answer is told apart from one that is empty, in both forms."""
    nothing = Status(
        group=Group(group_id="imagelane", state="Empty", members=()),
        partitions=(),
        last_result=None,
        dead_letters=DeadLetters(since=NOW, by_code={}, is_cut=False),
    )
    unknown, empty = table(UNKNOWN, settings, NOW), table(nothing, settings, NOW)

    assert all(line.endswith(": not known") for line in unknown)
    assert not any("not known" in line for line in empty)
    assert "last result: none that verifies" in empty
    for part in json.loads(document(UNKNOWN)).values():
        assert part == {"error": {"exit_code": 67, "reason": "access: no right"}}
    assert not any("error" in (part or {}) for part in json.loads(document(nothing)).values())
    assert list(UNKNOWN.faults) == list(json.loads(document(UNKNOWN)))


def test_what_an_open_transaction_holds_back(settings: StatusSettings) -> None:
    """Nothing waits that can be read, and yet something does: a line says so."""
    held = replace(ALL, partitions=(partition(0, "gpu-0", backlog=0, withheld=7),))

    [line] = [line for line in table(held, settings, NOW) if "transaction" in line]

    assert line.startswith("image.ingest[0]: 7 offsets more wait behind an open transaction")


def test_json() -> None:
    """It holds what the table shows, with names instead of columns."""
    told = json.loads(document(ALL))

    assert told["group"]["members"][0]["partitions"] == [["image.ingest", 0], ["image.queries", 0]]
    assert told["partitions"][1]["position"] is None
    assert told["partitions"][0]["open"] == 3
    assert told["last_result"]["id"] == "a1"
    assert told["dead_letters"]["by_code"] == {"not_found": 10, "stale": 2}


def test_without_a_secret_nothing_is_vouched_for() -> None:
    """The place of the last record is told, and that nobody has verified it."""
    settings = StatusSettings.from_env({})
    record = LastResult(topic="image.results", partition=0, offset=9, appended_at=NOW - 60)
    status = Status(group=FAULT, partitions=FAULT, last_result=record, dead_letters=FAULT)

    line = table(status, settings, NOW)[2]

    assert line == "last result: 60 s ago, image.results[0]@9, not verified: no SECRET_API_KEY"


def test_letters_that_were_not_all_read(settings: StatusSettings) -> None:
    """More than the bound: the line says that it counts the latest alone."""
    cut = DeadLetters(since=NOW, by_code={"stale": 2000}, is_cut=True)
    status = Status(group=FAULT, partitions=FAULT, last_result=None, dead_letters=cut)

    assert "the latest 2000 offsets alone" in table(status, settings, NOW)[-1]
