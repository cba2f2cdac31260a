"""Where a group begins, and what it says when Kafka has forgotten its position or its records."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs

from consumer.broker import evidence
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from imagelane.position import Position
from schemas import KeyRing, Signer
from tests.conftest import Broker, Topics
from tests.contract.members import Join, publish

pytestmark = pytest.mark.integration

OURS, NOT_TOLD = "ours", None
FOREIGN_KEYS = KeyRing(current_id="k1", secrets={"k1": b"a secret of somebody else, 0123456789"})


class Results:
    """Results as consumers of the past have left them."""

    def __init__(self, broker: Broker, topics: Topics, settings: ConsumerSettings) -> None:
        self._broker, self._topics, self._settings = broker, topics, settings

    async def leave(
        self,
        *offsets: int,
        group: str | None = OURS,
        topic: str | None = None,
        partition: int = 0,
        keys: KeyRing | None = None,
    ) -> None:
        """Publish a signed result for each offset of the ingest topic, in this order."""
        signer = Signer(keys or self._settings.keys, self._topics.results)
        async with AIOKafkaProducer(bootstrap_servers=self._broker.bootstrap) as producer:
            for offset in offsets:
                source = {
                    "topic": topic or self._topics.ingest,
                    "partition": partition,
                    "offset": offset,
                }
                if group:
                    source["group"] = self._settings.group_id if group == OURS else group
                value = orjson.dumps({"version": 1, "id": f"r{offset}", "source": source})
                await producer.send_and_wait(
                    self._topics.results,
                    value=value,
                    headers=signer.sign(
                        id=f"r{offset}", timestamp=int(time.time()), key=None, value=value
                    ),
                )


@pytest.fixture
def results(broker: Broker, topics: Topics, settings: ConsumerSettings) -> Results:
    return Results(broker, topics, settings)


@pytest.mark.parametrize("group", [OURS, NOT_TOLD])
async def test_group_whose_position_is_gone_does_not_begin_anew(
    topics: Topics, results: Results, join: Join, group: str | None
) -> None:
    """Its own results are evidence, and so are those of consumers that did not tell their group."""
    await results.leave(7, 150, 149, group=group)

    with pytest.raises(FatalError) as caught:
        await join()

    assert caught.value.code is ExitCode.NO_POSITION
    assert "source.offset 150" in str(caught.value)
    assert f"BEGIN_AT={topics.ingest}-0:151" in str(caught.value)
    assert f"{topics.ingest}-0" in str(caught.value)


async def test_second_group_says_once_that_it_does_all_again(
    broker: Broker, topics: Topics, results: Results, join: Join
) -> None:
    """Results of another group hinder nobody: a new group is meant to do everything."""
    await publish(broker, topics.ingest, 3)
    await results.leave(0, 1, 2, group="another")

    with capture_logs() as logs:
        member = await join()
        assert await member.assigned() == Position(offset=0)

    [line] = [entry for entry in logs if entry.get("others")]
    assert line["others"] == ["another"]
    assert line["log_level"] == "warning"


async def test_results_that_are_no_evidence_hinder_nothing(
    broker: Broker, topics: Topics, results: Results, join: Join
) -> None:
    """Forged ones, those of another topic, and those of another partition."""
    await publish(broker, topics.ingest, 3)
    await results.leave(2, keys=FOREIGN_KEYS)
    await results.leave(2, topic="another.topic")
    await results.leave(2, partition=1)

    member = await join()

    assert await member.assigned() == Position(offset=0)


@pytest.mark.parametrize(
    ("begin_at", "offset"), [("earliest", 0), ("latest", 3), ("0:2", 2), ("1:1,0:1", 1)]
)
async def test_operator_says_where_to_begin_and_says_it_once(
    broker: Broker,
    topics: Topics,
    results: Results,
    join: Join,
    settings: ConsumerSettings,
    begin_at: str,
    offset: int,
) -> None:
    """What `BEGIN_AT` says is committed at once, so that the next start needs it no more."""
    await publish(broker, topics.ingest, 3)
    await results.leave(0, 1)

    first = await join(settings.model_copy(update={"begin_at": begin_at}))
    assert (await first.assigned()).offset == offset
    await first.leave()

    second = await join()
    assert (await second.assigned()).offset == offset


async def test_offset_of_another_partition_says_nothing(
    results: Results, join: Join, settings: ConsumerSettings
) -> None:
    """`BEGIN_AT` names partitions, and this is none of them."""
    await results.leave(0, 1)

    with pytest.raises(FatalError) as caught:
        await join(settings.model_copy(update={"begin_at": "1:0"}))

    assert caught.value.code is ExitCode.NO_POSITION


@pytest.mark.parametrize("offsets", [(9, 3, 4, 5), (1, 9)])
async def test_highest_is_found_behind_lower_ones(
    results: Results, join: Join, monkeypatch: pytest.MonkeyPatch, offsets: Sequence[int]
) -> None:
    """Records finish in any order, so the last result is not the one that reaches furthest."""
    monkeypatch.setattr(evidence, "WINDOW_RECORDS", 2)
    monkeypatch.setattr(evidence, "ENOUGH", 4)
    await results.leave(*offsets)

    with pytest.raises(FatalError, match=r"source\.offset 9:"):
        await join()


async def test_results_that_are_too_many_to_read_are_no_proof_of_a_new_group(
    results: Results, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not read may hold results of this group: nothing begins anew on a guess."""
    monkeypatch.setattr(evidence, "MAX_RECORDS", 2)
    await results.leave(0, 1, 2, 3, group="another")

    with pytest.raises(FatalError, match="too long") as caught:
        await join()

    assert caught.value.code is ExitCode.NO_POSITION


async def set_position(broker: Broker, settings: ConsumerSettings, offset: int) -> None:
    """Set the group's position as an operator's tool does, without metadata."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id=settings.group_id, enable_auto_commit=False
    )
    async with consumer:
        partition = TopicPartition(settings.ingest_topic, 0)
        consumer.assign([partition])
        await consumer.commit({partition: offset})


@pytest.mark.parametrize(("offset", "warnings"), [(1, 1), (3, 0)])
async def test_position_that_somebody_set_back_is_told(
    broker: Broker,
    topics: Topics,
    results: Results,
    join: Join,
    settings: ConsumerSettings,
    offset: int,
    warnings: int,
) -> None:
    """To do work again is an operator's right; the log says from where to where."""
    await publish(broker, topics.ingest, 3)
    await results.leave(0, 1, 2)
    await set_position(broker, settings, offset)

    with capture_logs() as logs:
        member = await join()
        assert await member.assigned() == Position(offset=offset)

    lines = [entry for entry in logs if entry["event"].startswith("position was set back")]
    assert [(line["offset"], line["results_reach"]) for line in lines] == [(1, 2)] * warnings


async def delete_before(broker: Broker, topic: str, offset: int) -> None:
    """Delete the records below an offset, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)}
        )
    finally:
        await admin.close()


def deleted(logs: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    lines = [entry for entry in logs if entry["event"] == "records were deleted unread"]
    assert all(line["log_level"] == "error" for line in lines)
    return [(line["records"], line["first_offset"], line["last_offset"]) for line in lines]


async def test_records_deleted_before_the_start_are_counted(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """A position that retention has passed: what is gone is said, and the rest is read."""
    await publish(broker, topics.ingest, 5)
    first = await join()
    await first.poll(5)
    await first.commit([], Position.up_to(1))
    await first.leave()
    await delete_before(broker, topics.ingest, 4)

    with capture_logs() as logs:
        second = await join()
        records = await second.poll(1)

    assert [record.value for record in records] == [b"4"]
    assert deleted(logs) == [(3, 1, 3)]
    assert second.stream.deleted_unread == 3


async def test_records_deleted_in_the_run_are_counted(
    broker: Broker, topics: Topics, join: Join
) -> None:
    """A fetch that finds its offset gone goes on at the start of the log, and says so."""
    await publish(broker, topics.ingest, 5)
    member = await join()
    await member.poll(5)
    for _ in range(12):  # until no fetch is under way any longer, which takes 0.5 s
        await member.stream.poll({member.partition: 0}, 0.1)
    await publish(broker, topics.ingest, 3)
    await delete_before(broker, topics.ingest, 7)

    with capture_logs() as logs:
        records = await member.poll(1)

    assert [record.value for record in records] == [b"2"]
    assert deleted(logs) == [(2, 5, 6)]
    assert member.stream.deleted_unread == 2
