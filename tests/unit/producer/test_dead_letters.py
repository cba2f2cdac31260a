"""What goes back to the ingest topic: authentic, whole, and forgotten by the consumer."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from producer.cli.times import unix_seconds
from producer.dead_letters import NotRedriven, Renewal, Selection, place_of_original
from schemas import (
    Code,
    Freshness,
    Headers,
    KeyRing,
    OutgoingRecord,
    Record,
    Request,
    Signer,
    Stage,
    TimestampType,
    Verifier,
    admit,
    encode_request,
)
from schemas.headers import is_dead_letter_header

INGEST, DLQ = "image.ingest", "image.ingest.dlq"
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
BEFORE = KeyRing(current_id="k1", secrets={"k1": OLD})
ROTATED = KeyRing(current_id="k2", secrets={"k1": OLD, "k2": NEW})
NOW = 1_764_000_000
SIGNED = ("sig-id", "sig-ts", "sig")
VALUE = encode_request(Request.model_validate({"id": "a1", "image": {"uri": "s3://b/k"}}))
ADMIT_CODES = [code for code in Code if code.stage is Stage.ADMIT]
LATER_CODES = [code for code in Code if code.stage is not Stage.ADMIT]


def renewal(keys: KeyRing = ROTATED) -> Renewal:
    return Renewal(
        verifier=Verifier(keys, INGEST),
        signer=Signer(keys, INGEST),
        ingest_topic=INGEST,
        replay_window_seconds=600,
        max_age_seconds=604_800,
    )


def original_of(dead: Record) -> Record:
    """The record that a dead letter is made of, as it stands in the ingest topic."""
    headers = [header for header in dead.headers if not is_dead_letter_header(header[0])]
    return replace(dead, topic=INGEST, headers=headers)


def renew(
    dead: Record, now: float = NOW, keys: KeyRing = ROTATED, outcomes: Iterable[str] = ()
) -> tuple[str, OutgoingRecord]:
    return renewal(keys).renew(dead, original_of(dead), frozenset(outcomes), now)


def letter(
    code: str = "stale",
    *,
    keys: KeyRing = BEFORE,
    topic: str = INGEST,
    appended: float = NOW - 86_400,
    value: bytes | None = VALUE,
    more: Headers = (),
    **changes: Any,
) -> Record:
    """The dead letter of a record that `keys` signed for `topic`, two days ago."""
    signature = Signer(keys, topic).sign(id="a1", timestamp=NOW - 172_800, key=b"k", value=value)
    about = [
        ("__dlq.errors.message", b"reason"),
        ("dlq-code", code.encode()),
        ("dlq-stage", Code(code).stage.encode()),  # type: ignore[call-arg]  # it looks one up
        ("dlq-original-timestamp", b"%d" % (appended * 1000)),
    ]
    fields: Mapping[str, Any] = {
        "topic": DLQ,
        "partition": 0,
        "offset": 0,
        "timestamp_ms": NOW * 1000,
        "timestamp_type": TimestampType.CREATE,
        "key": b"k",
        "value": value,
        "headers": [*signature, *more, *about],
    }
    return Record(**{**fields, **changes})


def refusal(dead: Record, keys: KeyRing = ROTATED) -> str:
    with pytest.raises(NotRedriven) as refused:
        renew(dead, keys=keys)
    return str(refused.value)


def test_a_renewed_record_is_admitted_by_a_consumer() -> None:
    """By one that has only the new key: same id, key and value, signed now."""
    id, record = renew(letter(), NOW)
    arrived = Record(
        topic=record.topic,
        partition=0,
        offset=0,
        timestamp_ms=NOW * 1000,
        timestamp_type=TimestampType.APPEND,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )

    only_new = Verifier(KeyRing(current_id="k2", secrets={"k2": NEW}), INGEST)
    request = admit(arrived, verifier=only_new, freshness=Freshness(), now=NOW)

    assert (id, request.id) == ("a1", "a1")
    assert (record.topic, record.key, record.value) == (INGEST, b"k", VALUE)


def test_headers_of_others_are_kept_and_those_of_the_dead_letter_are_not() -> None:
    """In their order, twice if they came twice, and each signature header once."""
    others = [("traceparent", b"00-1"), ("tag", b"a"), ("tag", b"b")]

    _, record = renew(letter(more=others), NOW)

    assert list(record.headers[:3]) == others
    assert [name for name, _ in record.headers[3:]] == ["sig-id", "sig-ts", "sig"]


@pytest.mark.parametrize("code", Code)
def test_a_forgery_is_never_signed_again(code: Code) -> None:
    """Whatever the dead letter says it died of: nobody signed that."""
    forger = KeyRing(current_id="k1", secrets={"k1": b"x" * 32})

    assert "not authentic: bad_signature" in refusal(letter(code, keys=forger))


@given(data=st.data())
def test_a_changed_byte_is_never_signed_again(data: st.DataObject) -> None:
    """In the value, the key, or what is signed beside them."""
    dead = letter()
    headers = dict(dead.headers)
    parts = {"key": b"k", "value": VALUE} | {name: headers[name] for name in SIGNED}
    name = data.draw(st.sampled_from(sorted(parts)))
    part = bytearray(parts[name])
    part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    changed = parts | {name: bytes(part)}

    headers |= {header: changed[header] for header in SIGNED}
    forged = replace(
        dead, key=changed["key"], value=changed["value"], headers=list(headers.items())
    )

    assert "never signed again" in refusal(forged)


@pytest.mark.parametrize("missing", SIGNED)
def test_an_unsigned_record_is_never_signed(missing: str) -> None:
    """Each of the three headers is needed."""
    headers = [header for header in letter().headers if header[0] != missing]

    assert "not authentic: unsigned" in refusal(letter(headers=headers))


def test_a_record_of_another_topic_is_never_signed_again() -> None:
    """It was never meant for this one."""
    assert "not authentic: bad_signature" in refusal(letter(topic="other.ingest"))


def test_a_key_that_was_retired_for_good_renews_nothing() -> None:
    """Current and previous keys only."""
    only_new = KeyRing(current_id="k2", secrets={"k2": NEW})

    assert "not authentic: unknown_key" in refusal(letter(), only_new)


def test_a_truncated_one_goes_back_whole() -> None:
    """It is its original that goes back."""
    dead = replace(letter(more=[("dlq-truncated", b"true")]), value=b'{"byte_length":9}')

    _, record = renewal().renew(dead, original_of(letter()), frozenset(), NOW)

    assert record.value == VALUE


def test_what_is_not_in_the_ingest_topic_is_not_signed() -> None:
    """Anybody who can write to the topic of the dead letters can put one there."""
    with pytest.raises(NotRedriven, match="no longer in the ingest topic"):
        renewal().renew(letter(), None, frozenset(), NOW)


def test_a_dead_letter_that_names_the_place_of_another_is_not_redriven() -> None:
    """It is that other's business whether it goes back."""
    other = letter()
    headers = [(name, b"b2" if name == "sig-id" else value) for name, value in other.headers]

    with pytest.raises(NotRedriven, match="has the id a1"):
        renewal().renew(replace(other, headers=headers), original_of(other), frozenset(), NOW)


@pytest.mark.parametrize(
    ("code", "outcomes", "goes"),
    [
        ("stale", {"ok"}, False),
        ("stale", {"error"}, False),
        ("stale", set(), True),
        ("not_found", {"error"}, True),
        ("not_found", {"error", "ok"}, False),
    ],
)
def test_an_id_that_has_an_outcome_is_passed_over(
    code: str, outcomes: set[str], goes: bool
) -> None:
    """What failed has an error: that is why it goes back."""
    if goes:
        assert renew(letter(code), outcomes=outcomes)[0] == "a1"
    else:
        with pytest.raises(NotRedriven, match="outcome already"):
            renew(letter(code), outcomes=outcomes)


def test_an_old_signature_is_not_renewed() -> None:
    """A record that somebody kept for long must not become a new one."""
    signed_at = NOW - 172_800

    assert renew(letter(), signed_at + 604_800)[0] == "a1"
    with pytest.raises(NotRedriven, match="REDRIVE_MAX_AGE_SECONDS"):
        renew(letter(), signed_at + 604_801)


@pytest.mark.parametrize("header", ["topic", "partition", "offset"])
def test_what_names_no_place_of_the_ingest_topic_has_no_original(header: str) -> None:
    """It may be anybody's."""
    place = {"topic": INGEST.encode(), "partition": b"0", "offset": b"7"}
    named = letter(more=[(f"__dlq.errors.{name}", value) for name, value in place.items()])
    unnamed = letter(
        more=[(f"__dlq.errors.{name}", place[name]) for name in place if name != header]
    )

    assert place_of_original(named, INGEST) == (INGEST, 0, 7)
    with pytest.raises(NotRedriven):
        place_of_original(unnamed, INGEST)


def test_a_null_value_cannot_be_redriven() -> None:
    """There is no request in it, though it was signed."""
    assert "null" in refusal(letter("malformed", value=None))


@pytest.mark.parametrize("code", LATER_CODES)
@pytest.mark.parametrize(("age", "wait"), [(0, 601), (599.5, 1), (600, 1), (-5, 606)])
def test_what_the_consumer_still_remembers_is_held_back(code: Code, age: float, wait: int) -> None:
    """It was admitted, and would be dropped as a repeat."""
    assert refusal(letter(code, appended=NOW - age)) == f"too recent: again in {wait} s"


@pytest.mark.parametrize("code", LATER_CODES)
def test_the_time_that_was_told_is_enough(code: Code) -> None:
    """Whoever waits as long as he was told is not told again to wait."""
    assert renew(letter(code, appended=NOW), NOW + 601)[0] == "a1"


@pytest.mark.parametrize("code", ADMIT_CODES)
def test_what_was_never_admitted_need_not_wait(code: Code) -> None:
    """The consumer did not remember its id."""
    assert renew(letter(code, appended=NOW), NOW)[0] == "a1"


@pytest.mark.parametrize("header", ["dlq-code", "dlq-original-timestamp"])
@pytest.mark.parametrize("text", [b"", b"later", b"\xff", None])
def test_what_does_not_say_why_or_when_it_died_stays(header: str, text: bytes | None) -> None:
    """Whether its id is remembered cannot be known then."""
    headers = [(name, text if name == header else value) for name, value in letter().headers]

    assert refusal(letter(headers=headers)).startswith("no dead letter of ours")


def test_each_condition_must_hold() -> None:
    """Code, id and time; what is not given is not asked."""
    dead = letter("not_found")
    codes, ids = frozenset({Code.NOT_FOUND}), frozenset({"a1"})

    assert Selection().takes(dead)
    assert Selection(codes=codes, ids=ids, since=NOW, until=NOW + 1).takes(dead)
    assert not Selection(codes=frozenset({Code.STALE}), ids=ids).takes(dead)
    assert not Selection(codes=codes, ids=frozenset({"a"})).takes(dead)


def test_since_is_included_and_until_is_not() -> None:
    """So that two runs, one after the other in time, share no dead letter."""
    dead = letter()

    assert Selection(since=NOW).takes(dead)
    assert not Selection(since=NOW + 0.001).takes(dead)
    assert not Selection(until=NOW).takes(dead)


@pytest.mark.parametrize(
    "text",
    [
        "1764000000",
        "1764000000.0",
        "2025-11-24T16:00:00",
        "2025-11-24T16:00:00Z",
        "2025-11-24T17:00+01:00",
    ],
)
def test_a_time_is_unix_or_iso(text: str) -> None:
    """Without an offset it is UTC, wherever the terminal is."""
    assert unix_seconds(text) == NOW


@pytest.mark.parametrize("text", ["", "yesterday", "nan", "-inf", "1e9", "2025-13-01"])
def test_another_time_is_a_usage_error(text: str) -> None:
    """Named as it was given."""
    with pytest.raises(typer.BadParameter, match="no time"):
        unix_seconds(text)
