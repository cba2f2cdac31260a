"""Admission: size, signature, freshness, form, id, in this order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Code, Freshness, Record, Refused, Request, Stage, TimestampType
from schemas import admit as admit_record
from schemas.codec import MAX_VALUE_BYTES
from tests import strategies
from tests.unit.schemas.records import SIGNED_AT, VALUE, VERIFIER, admit, record, signed_headers


def refusal(record: Record, *, now: float = SIGNED_AT) -> Refused:
    with pytest.raises(Refused) as caught:
        admit(record, now=now)
    return caught.value


def test_authentic_fresh_and_well_formed_record_comes_in() -> None:
    """The request is what was signed."""
    request = admit(record())

    assert (request.id, request.subject) == ("01JABC", "file:///a")


@pytest.mark.parametrize("seconds", [-300, -299.999, 0, 299.999, 300])
def test_append_within_the_window_is_fresh(seconds: float) -> None:
    """With LogAppendTime, 300 s either way, both ends included."""
    appended_ms = round((SIGNED_AT + seconds) * 1000)

    assert admit(record(timestamp_ms=appended_ms)).id == "01JABC"


@pytest.mark.parametrize("milliseconds", [-300_001, 300_001, -86_400_000, 86_400_000])
def test_append_outside_the_window_is_stale(milliseconds: int) -> None:
    """One millisecond beyond either end is too far."""
    stale = record(timestamp_ms=SIGNED_AT * 1000 + milliseconds)

    assert refusal(stale).code is Code.STALE


def test_reason_of_staleness_says_which_side_and_how_far() -> None:
    """A wrong clock at the sender can be told from an old record."""
    late = refusal(record(timestamp_ms=SIGNED_AT * 1000 + 300_001))
    early = refusal(record(timestamp_ms=SIGNED_AT * 1000 - 300_001))

    assert late.reason == "signed 300.001 s before the append; at most 300 s"
    assert early.reason == "signed 300.001 s after the append; at most 300 s"


@pytest.mark.parametrize("now", [SIGNED_AT, SIGNED_AT + 10**8, 0])
def test_backlog_of_appended_records_stays_honest(now: float) -> None:
    """With LogAppendTime our own clock plays no part, however late we read."""
    assert admit(record(), now=now).id == "01JABC"


@pytest.mark.parametrize("seconds", [-86_400, 0, 86_400])
def test_created_record_within_its_window_is_fresh(seconds: float) -> None:
    """With CreateTime the check is against now, with the longer window, both ends included."""
    created = record(timestamp_type=TimestampType.CREATE)

    assert admit(created, now=SIGNED_AT + seconds).id == "01JABC"


@pytest.mark.parametrize("seconds", [-86_400.001, 86_400.001])
def test_created_record_outside_its_window_is_stale(seconds: float) -> None:
    """Beyond either end it is stale."""
    created = record(timestamp_type=TimestampType.CREATE)

    assert refusal(created, now=SIGNED_AT + seconds).code is Code.STALE


def test_timestamp_that_the_producer_set_does_not_make_fresh() -> None:
    """With CreateTime the record's own time is a claim that nobody signed."""
    claim = record(timestamp_type=TimestampType.CREATE, timestamp_ms=SIGNED_AT * 1000)

    assert refusal(claim, now=SIGNED_AT + 10**6).code is Code.STALE


def test_windows_are_settings() -> None:
    """A window of zero takes only the very second."""
    freshness = Freshness(append_window_seconds=0, create_window_seconds=0)

    assert admit_record(record(), verifier=VERIFIER, freshness=freshness, now=0).id == "01JABC"
    with pytest.raises(Refused, match="stale"):
        admit_record(
            record(timestamp_ms=SIGNED_AT * 1000 + 1),
            verifier=VERIFIER,
            freshness=freshness,
            now=SIGNED_AT,
        )


def test_largest_value_comes_in_and_one_byte_more_does_not() -> None:
    """256 KiB is the limit."""
    largest = VALUE.ljust(MAX_VALUE_BYTES)

    assert admit(record(value=largest)).id == "01JABC"
    assert refusal(record(value=largest + b" ")).code is Code.TOO_LARGE


def test_size_is_looked_at_before_the_signature() -> None:
    """Who cannot sign cannot make us hash megabytes."""
    huge = record(value=b" " * (MAX_VALUE_BYTES + 1), headers=[])

    assert refusal(huge).code is Code.TOO_LARGE


def test_signature_is_looked_at_before_the_value() -> None:
    """Nothing unsigned reaches the parser, nor learns what is wrong with its JSON."""
    assert refusal(record(value=b"{", headers=[])).code is Code.UNSIGNED
    assert refusal(record(value=b"{", headers=signed_headers())).code is Code.BAD_SIGNATURE


def test_freshness_is_looked_at_before_the_value() -> None:
    """An old record is stale, whatever is in it."""
    assert refusal(record(value=b"{", timestamp_ms=0)).code is Code.STALE


def test_signed_null_value_is_malformed() -> None:
    """A tombstone can be signed, and is no request."""
    assert refusal(record(value=None)).code is Code.MALFORMED


def test_signed_rubbish_is_malformed() -> None:
    """A good signature does not make JSON."""
    assert refusal(record(value=b"{")).code is Code.MALFORMED


def test_id_that_is_not_the_signed_one_is_refused() -> None:
    """The replay window goes by the signed id, the result by the value's: they must be one."""
    mismatch = record(headers=signed_headers(id="01JABD"))

    refused = refusal(mismatch)

    assert refused.code is Code.ID_MISMATCH
    assert "01JABC" in refused.reason
    assert "01JABD" in refused.reason


@given(
    st.none() | st.binary(max_size=80) | strategies.near_requests(),
    strategies.bytes_or_null,
    st.lists(st.tuples(st.sampled_from(["sig-id", "sig-ts", "sig", "x"]), st.binary(max_size=9)))
    | st.none(),
    st.integers(-1, 2 * SIGNED_AT * 1000),
    st.sampled_from(TimestampType),
)
def test_any_record_gives_a_request_or_one_refusal(
    value: bytes | None,
    key: bytes | None,
    headers: list[tuple[str, bytes]] | None,
    timestamp_ms: int,
    timestamp_type: TimestampType,
) -> None:
    """Signed or not, fresh or not: nothing but a request or a code of stage admit comes out."""
    any_record = record(
        value=value,
        key=key,
        headers=headers,
        timestamp_ms=timestamp_ms,
        timestamp_type=timestamp_type,
    )

    try:
        outcome: Request | Refused = admit(any_record)
    except Refused as refused:
        outcome = refused

    assert isinstance(outcome, Request) or outcome.code.stage is Stage.ADMIT
