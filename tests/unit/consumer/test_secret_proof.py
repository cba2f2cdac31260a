"""One record that verifies proves our secret; refusals are counted, and told once a minute."""

import pytest

from consumer.outcome import RefusedOutcome
from consumer.record.secret_proof import UNVERIFIED, Refusals, SecretProof
from schemas import Code, ImageReference, Record, Request, Signer, Stage, TimestampType
from schemas.admission import MAX_HEADERS
from tests.fakes import INGEST, KEYS, NOW, fake_pipeline, signed_record

REQUEST = Request(id="a", image=ImageReference(uri="file:///a.png"))
VERIFIED = [code for code in Code if code.stage is Stage.ADMIT and code not in UNVERIFIED]


def _signed(value: bytes | None, *, age_seconds: int = 0) -> Record:
    at = NOW - age_seconds
    signed = Signer(KEYS, INGEST).sign(id="a", timestamp=at, key=None, value=value)
    return signed_record(REQUEST, value=value, headers=signed)


def test_nothing_seen_is_no_doubt() -> None:
    """An empty topic says nothing against our secret, and nothing for it."""
    proof = SecretProof()
    assert not proof.proven
    assert proof.doubt is None


@pytest.mark.parametrize("code", sorted(UNVERIFIED))
def test_refusal_without_a_right_signature_proves_nothing(code: Code) -> None:
    """However many there are, and the doubt says how many of which."""
    proof = SecretProof()
    for _ in range(1000):
        proof.note(code)
    assert not proof.proven
    assert f"1000 {code}" in proof.doubt
    assert "SECRET_API_KEY" in proof.doubt


@pytest.mark.parametrize("code", [None, *VERIFIED])
def test_right_signature_proves_the_secret_whatever_it_signs(code: Code) -> None:
    """For good: no refusal after it takes the proof away."""
    for note in (SecretProof.note, SecretProof.note_history):
        proof = SecretProof()
        proof.note(Code.UNSIGNED)
        note(proof, code)
        proof.note(Code.UNSIGNED)
        assert proof.proven
        assert proof.doubt is None


def test_refusal_of_before_this_run_is_no_doubt() -> None:
    """It has its dead letter: nothing waits because of it."""
    proof = SecretProof()
    proof.note_history(Code.BAD_SIGNATURE)
    assert not proof.proven
    assert proof.doubt is None


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (_signed(b'{"version":2,"id":"a"}'), Code.UNSUPPORTED_VERSION),
        (_signed(b'{"version":1,"id":"a","image":{"uri":"x"},"new":1}'), Code.INVALID),
        (_signed(b"{"), Code.MALFORMED),
        (_signed(None), Code.MALFORMED),
        (_signed(b'{"version":1,"id":"b","image":{"uri":"x"}}'), Code.ID_MISMATCH),
        (_signed(b'{"version":1,"id":"a","image":{"uri":"x"}}', age_seconds=330), Code.STALE),
    ],
    ids=["version 2", "unknown field", "malformed", "null", "other id", "clock 330 s off"],
)
async def test_signed_record_that_is_refused_proves_the_secret(record: Record, code: Code) -> None:
    """Its signature was found right before it was looked into: each kind, by the real admission."""
    pipeline = fake_pipeline(proof=SecretProof())
    assert pipeline.proves(record)
    outcome = await pipeline.process(record)
    assert isinstance(outcome, RefusedOutcome)
    assert outcome.code is code
    recalling = fake_pipeline(proof=SecretProof())
    assert recalling.recall(record) is None
    assert recalling.secret_proven


@pytest.mark.parametrize(
    "record",
    [
        signed_record(REQUEST, headers=[]),
        signed_record(REQUEST, key=b"other", headers=signed_record(REQUEST).headers),
        signed_record(REQUEST, headers=[("sig-id", b"a")] * 2),
        signed_record(REQUEST, headers=[*signed_record(REQUEST).headers, *[("h", b"")] * 126]),
        signed_record(REQUEST, value=b" " * 300_000),
    ],
    ids=["unsigned", "bad signature", "twice", "headers", "large"],
)
def test_unverified_record_proves_nothing(record: Record) -> None:
    """Nobody without the secret can have a record processed while it is not proven."""
    pipeline = fake_pipeline(proof=SecretProof())
    assert not pipeline.proves(record)
    assert pipeline.recall(record) is None
    assert not pipeline.secret_proven


def test_replayed_record_proves_the_secret() -> None:
    """It was signed with it, whoever sends it again; and append time is the broker's."""
    pipeline = fake_pipeline(proof=SecretProof())
    replay = signed_record(REQUEST, timestamp_ms=(NOW + 10_000) * 1000)
    assert replay.timestamp_type is TimestampType.APPEND
    assert pipeline.proves(replay)


def test_as_many_headers_as_a_good_record_may_have() -> None:
    """The bound is where it says."""
    more = [("h", b"")] * (MAX_HEADERS - 3)
    good = signed_record(REQUEST, headers=[*signed_record(REQUEST).headers, *more])
    assert fake_pipeline(proof=SecretProof()).proves(good)


def test_refusals_are_told_once_a_minute() -> None:
    """The first at once; then all of the minute together."""
    refusals = Refusals()
    assert refusals.due(0) is None
    refusals.note(Code.UNSIGNED, truncated=False)
    assert refusals.due(0) == "1 unsigned"
    for _ in range(3):
        refusals.note(Code.STALE, truncated=False)
    refusals.note(Code.UNSIGNED, truncated=True)
    assert refusals.due(59) is None
    assert refusals.due(60).startswith("3 stale, 1 unsigned; 1 dead letters were truncated")
    assert refusals.due(200) is None


def test_unknown_key_beside_good_records_is_called_a_rotation() -> None:
    """And the line says how it is healed."""
    refusals = Refusals()
    refusals.note(Code.UNKNOWN_KEY, truncated=False)
    told = refusals.due(0)
    assert "SECRET_API_KEYS_PREVIOUS" in told
    assert "redrive --code unknown_key" in told
