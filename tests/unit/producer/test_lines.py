"""What `sign` prints, `verify` accepts, and nothing else."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagelane.settings import WireSettings
from producer.cli.console_lines import NotSignable, format_console, format_kcat, id_of, parse_line
from producer.cli.line_checks import check_line
from schemas import (
    Code,
    ImageInfo,
    Refused,
    Request,
    Result,
    Signer,
    Source,
    TimestampType,
    TimingMs,
    encode_request,
    encode_result,
)
from tests.strategies import requests

NOW = 1_764_000_000
INGEST, RESULTS = "image.ingest", "image.results"
SECRET = "a-secret-that-only-this-test-knows-0123456789"
SETTINGS = WireSettings.from_env({"SECRET_API_KEY": SECRET})
KEYS = SETTINGS.keys
REQUEST = encode_request(
    Request.model_validate({"id": "01JABC", "image": {"uri": "file:///data/cat.jpg"}})
)
RESULT = encode_result(
    Result(
        id="01JABC",
        status="ok",
        image=ImageInfo(uri="file:///a", sha256="0" * 64, width=1, height=1, format="PNG"),
        timing_ms=TimingMs(total=1.0),
        source=Source(topic=INGEST, partition=0, offset=0),
    )
)
keys = st.none() | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode).filter(
    lambda key: not set(key) & set(b"\t\r\n")
)


def check(line: bytes, *, topic: str = INGEST, at: float | None = None) -> str:
    return check_line(parse_line(line), topic, SETTINGS, at=at, now=NOW)


def signed(
    value: bytes = REQUEST, *, key: bytes | None = b"k", topic: str = INGEST, timestamp: int = NOW
) -> bytes:
    headers = Signer(KEYS, topic).sign(id=id_of(value), timestamp=timestamp, key=key, value=value)
    return format_console(headers, key, value)


def code_of(line: bytes, *, topic: str = INGEST, at: float | None = None) -> Code:
    with pytest.raises(Refused) as refused:
        check(line, topic=topic, at=at)
    return refused.value.code


@given(request=requests, key=keys)
def test_what_sign_prints_verify_accepts(request: Request, key: bytes | None) -> None:
    """For any request and any key that a console line can carry, the null key included."""
    line = signed(encode_request(request), key=key)

    assert check(line) == request.id


@given(
    request=requests,
    key=keys,
    columns=st.lists(
        st.sampled_from(
            [b"Partition:3", b"Offset:12", b"Delivery:NOT_PRESENT", b"Epoch:NOT_PRESENT"]
        ),
        unique=True,
    ),
    clock=st.sampled_from([b"CreateTime", b"LogAppendTime"]),
)
def test_what_the_console_consumer_prints_of_it_verifies_too(
    request: Request, key: bytes | None, columns: list[bytes], clock: bytes
) -> None:
    """It prints time, place and headers before a key that is `null` when there is none."""
    headers, _, rest = signed(encode_request(request), key=key).partition(b"\t")
    time = b"%s:%d" % (clock, NOW * 1000)
    columns = [time, *columns, headers, *([b"null"] if key is None else []), rest]

    assert check(b"\t".join(columns)) == request.id


@given(line=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_refused_with_a_code(line: bytes) -> None:
    """No line at all makes it raise anything else."""
    assert code_of(line).stage == "admit"


@given(data=st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    """Wherever it is: header, key or value."""
    line = bytearray(signed())
    position = data.draw(st.integers(0, len(line) - 1))
    line[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[position]))

    assert code_of(bytes(line)) in {Code.UNSIGNED, Code.BAD_SIGNATURE, Code.UNKNOWN_KEY}


def test_printed_append_time_is_the_clock_of_comparison() -> None:
    """A backlog of a day is judged by when the broker appended it."""
    late = b"LogAppendTime:%d\t" % ((NOW - 86_400) * 1000)

    assert check(late + signed(timestamp=NOW - 86_400))
    assert code_of(late + signed(timestamp=NOW)) is Code.STALE


def test_at_stands_for_the_append_time_whatever_is_printed() -> None:
    """With --at a line can be judged as of another day."""
    line = b"LogAppendTime:%d\t%s" % (NOW * 1000, signed())

    assert check(line, at=NOW + 300) == "01JABC"
    assert code_of(line, at=NOW + 302) is Code.STALE


def test_a_line_without_a_time_is_judged_now() -> None:
    """As if it were produced this moment."""
    assert code_of(signed(timestamp=NOW - 301)) is Code.STALE


def test_a_line_of_another_topic_is_refused() -> None:
    """The topic is in the signature."""
    assert code_of(signed(topic="image.other")) is Code.BAD_SIGNATURE


def test_a_signed_value_that_is_no_request_is_refused_on_the_ingest_topic_only() -> None:
    """`verify` says what the topic's reader would say; other topics have no schema here."""
    value = b'{"id":"a1","wish":1}'

    assert code_of(signed(value)) is Code.INVALID
    other = signed(value, topic="other")
    assert check(other, topic="other") == "a1"


def test_results_are_checked_as_results() -> None:
    """A request in the results topic is not one, though its signature holds."""
    line = signed(RESULT, topic=RESULTS)

    assert check(line, topic=RESULTS) == "01JABC"
    assert code_of(signed(topic=RESULTS), topic=RESULTS) is Code.INVALID


def test_a_signed_id_that_is_not_the_values_is_refused() -> None:
    """On either topic."""
    for topic, value in ((INGEST, REQUEST), (RESULTS, RESULT)):
        headers = Signer(KEYS, topic).sign(id="other", timestamp=NOW, key=None, value=value)

        assert code_of(format_console(headers, None, value), topic=topic) is Code.ID_MISMATCH


@pytest.mark.parametrize("topic", [INGEST, RESULTS])
def test_a_signed_null_value_is_malformed_and_not_forged(topic: str) -> None:
    """It is printed as `null`."""
    headers = Signer(KEYS, topic).sign(id="a1", timestamp=NOW, key=b"k", value=None)

    assert code_of(format_console(headers, b"k", b"null"), topic=topic) is Code.MALFORMED


def test_the_key_null_and_no_key_are_told_apart() -> None:
    """The console consumer prints both as `null`; the signature knows which it was."""
    of_word, of_null = signed(key=b"null"), signed(key=None).replace(b"\t", b"\tnull\t", 1)

    assert parse_line(of_word).readings == parse_line(of_null).readings
    for line in (of_word, of_null):
        assert check(line) == "01JABC"


def test_headers_of_others_may_hold_commas_and_colons() -> None:
    """They stand beside ours in what the console consumer prints."""
    line = parse_line(b"ce_time:2026-01-01T00:00:00Z,why:a,b, c,sig-ts:17\tkey\t{}")

    assert list(line.headers) == [
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("why", b"a,b, c"),
        ("sig-ts", b"17"),
    ]


def test_printed_columns_are_recognised() -> None:
    """`NO_HEADERS` is none, and the printed time says whose it is."""
    line = parse_line(b"CreateTime:5\tPartition:0\tOffset:9\tNO_HEADERS\tkey\t{}")

    assert line.headers == ()
    assert (line.timestamp_ms, line.timestamp_type) == (5, TimestampType.CREATE)
    assert line.readings[0] == (b"key", b"{}")


@pytest.mark.parametrize("value", [b'{"id":\t"a"}', b'{"id":"a"\r}', b'{"id":\n"a"}'])
def test_values_that_would_become_two_records_or_columns_are_not_signed(value: bytes) -> None:
    """The console tools split there."""
    with pytest.raises(NotSignable):
        signed(value)
    with pytest.raises(NotSignable):
        format_kcat(INGEST, "b:1", [], None, value)


@pytest.mark.parametrize("key", [b"a\tb", b"a\nb", b"\r"])
def test_keys_that_would_become_two_columns_are_not_signed(key: bytes) -> None:
    """The console tools split there."""
    with pytest.raises(NotSignable):
        signed(key=key)


@pytest.mark.parametrize("value", [b"[]", b"{}", b'{"id":7}', b"nonsense", b"\xff", b'"a"'])
def test_values_without_an_id_are_not_signed(value: bytes) -> None:
    """The signature's id is the value's."""
    with pytest.raises(NotSignable):
        id_of(value)


def test_kcat_command_survives_the_shell() -> None:
    """Quotes and dollars in key and value reach kcat as they are."""
    value = b'{"id":"a1","x":"it\'s $HOME `ls` \\\\"}'
    headers = Signer(KEYS, INGEST).sign(id="a1", timestamp=NOW, key=b"o'k", value=value)

    words = shlex.split(format_kcat(INGEST, "b:1", headers, b"o'k", value).decode())

    assert words[:2] == ["printf", "%s"]
    assert words[2].encode() == value
    assert words[words.index("-k") + 1] == "o'k"
    assert [words[i + 1] for i, word in enumerate(words) if word == "-H"] == [
        f"{name}={text.decode()}" for name, text in headers
    ]
