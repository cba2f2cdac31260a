"""What the topics should be, and how what exists differs."""

import pytest

from producer.settings import TopicSettings
from producer.topics import differences, topic_plans

INGEST, QUERIES, RESULTS, DLQ = topic_plans(TopicSettings(), partitions=None, replication=None)


def found(**changes: str) -> dict[str, str]:
    return {**INGEST.configs, "partitions": "4", "replication": "1", **changes}


def test_the_broker_sets_the_time_of_requests() -> None:
    """Freshness is judged by its clock."""
    assert INGEST.configs["message.timestamp.type"] == "LogAppendTime"
    assert "message.timestamp.type" not in RESULTS.configs


def test_the_broker_unpacks_requests() -> None:
    """What is packed small and is large must not be the consumer's to unpack."""
    assert INGEST.configs["compression.type"] == "uncompressed"
    assert "compression.type" not in RESULTS.configs


def test_queries_are_requests_like_others() -> None:
    """Both topics of requests are made alike, but for their names."""
    assert QUERIES.configs == INGEST.configs
    assert (INGEST.name, QUERIES.name) == ("image.ingest", "image.queries")


def test_a_dead_letter_fits_whatever_was_refused() -> None:
    """Its topic takes more bytes than the one it comes from."""
    assert int(DLQ.configs["max.message.bytes"]) > int(INGEST.configs["max.message.bytes"])


def test_partitions_are_those_of_the_gpus_but_for_dead_letters() -> None:
    """One is enough for these."""
    plans = topic_plans(TopicSettings(), partitions=8, replication=None)

    assert [plan.partitions for plan in plans] == [8, 8, 8, 1]


@pytest.mark.parametrize(("replication", "expected"), [(None, None), (1, None), (3, "2")])
def test_with_three_replicas_two_must_have_a_record(
    replication: int | None, expected: str | None
) -> None:
    """Or all in-sync replicas may be one."""
    plans = topic_plans(TopicSettings(), partitions=None, replication=replication)

    assert {plan.configs.get("min.insync.replicas") for plan in plans} == {expected}


def test_what_nobody_asked_for_is_not_compared() -> None:
    """Four partitions are fine if no number was given."""
    assert differences(INGEST, found()) == ()


def test_a_difference_says_what_is_wanted_and_what_is() -> None:
    """Settings, partitions and replicas alike."""
    plan, *_ = topic_plans(TopicSettings(), partitions=8, replication=1)

    timestamps, partitions = differences(plan, found(**{"message.timestamp.type": "CreateTime"}))

    assert (timestamps.wanted, timestamps.found) == ("LogAppendTime", "CreateTime")
    assert (partitions.setting, partitions.wanted, partitions.found) == ("partitions", "8", "4")
