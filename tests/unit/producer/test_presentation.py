"""What people and machines see of an outcome."""

import json

import pytest

from producer.cli.outcome_lines import name_of, outcome_line
from producer.cli.progress import Tally
from producer.outcomes import Outcome, outcome_of
from schemas import Caption, ImageInfo, Result, Source, TimingMs


def ok(text: str = "a red circle") -> Outcome:
    result = Result(
        id="a1",
        status="ok",
        image=ImageInfo(uri="file:///p/cat.jpg", sha256="0" * 64, width=1, height=1, format="PNG"),
        caption=Caption(model="m", revision="r", text=text),
        timing_ms=TimingMs(total=412.4),
        source=Source(topic="t", partition=0, offset=0),
    )
    return outcome_of(result, b'{"as":"received"}')


def refused(message: str = "too old") -> Outcome:
    return Outcome(id="a1", status="refused", code="stale", message=message)


def test_a_line_has_name_status_time_and_caption() -> None:
    """In this order; the id last, where it is asked for."""
    line = outcome_line(ok(), "file:///p/my%20cat.jpg", as_json=False)

    assert line.split() == ["my", "cat.jpg", "ok", "412", "ms", "a", "red", "circle"]
    assert outcome_line(ok(), "file:///p/cat.jpg", with_id=True).endswith("a red circle  a1")


def test_a_refusal_says_code_and_message() -> None:
    """There is no result, hence no time."""
    line = outcome_line(refused(), "data:image/png;base64,xxxx", as_json=False)

    assert line.split(maxsplit=3) == ["data:", "refused", "-", "stale: too old"]


def test_a_reason_does_not_repeat_the_uri() -> None:
    """The name stands before it, and a long path would push the advice off the screen."""
    line = outcome_line(refused("file:///p/a.jpg: not allowed (FILE_ROOTS)"), "file:///p/a.jpg")

    assert line.split(maxsplit=3) == ["a.jpg", "refused", "-", "stale: not allowed (FILE_ROOTS)"]


def test_json_is_the_result_as_it_was_received() -> None:
    """Not serialised again."""
    assert outcome_line(ok(), None, as_json=True) == '{"as":"received"}'


def test_metadata_cannot_forge_a_line_of_json() -> None:
    """JSON allows line ends between members, and C1 and bidirectional controls in strings."""
    metadata = b'{"a":1,\n"b":"\xc2\x9b\xe2\x80\xae",\r\t"n":1.50}'
    value = b'{"id":"a1","metadata":%s}' % metadata
    outcome = outcome_of(ok().result, value)  # there is one

    line = outcome_line(outcome, None, as_json=True)

    assert line.isprintable()
    assert json.loads(line) == json.loads(value)
    assert '"n":1.50}' in line


def test_a_refusal_as_json_says_the_same_as_the_line() -> None:
    """In the form of an error result."""
    assert json.loads(outcome_line(refused(), None, as_json=True)) == {
        "id": "a1",
        "status": "refused",
        "error": {"code": "stale", "message": "too old"},
    }


@pytest.mark.parametrize("text", ["\x1b[2J", "one\ntwo", "\r", "\x9b31m"])
def test_a_line_cannot_steer_a_terminal(text: str) -> None:
    """File names and captions come from strangers."""
    lines = [
        outcome_line(ok(text), "file:///a.jpg", as_json=False),
        outcome_line(refused(text), f"file:///{text}.jpg", as_json=False),
    ]

    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("uri", ["http://[", "x" * 5000, "https://example.org/"])
def test_any_uri_has_a_short_name(uri: str) -> None:
    """What is no URI must not break the line, nor fill the screen."""
    assert len(outcome_line(refused(), uri, as_json=False)) < 200


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://user:hunter2@example.org/a/cat.jpg?token=hunter2", "cat.jpg"),
        ("https://user:hunter2@example.org/?token=hunter2#hunter2", "https:"),
        ("https://user:hunter2@[/cat.jpg", "https:"),
        ("https:user:hunter2@example.org", "https:"),
        ("https:/user:hunter2@example.org", "https:"),
        ("s3://user:hunter2@pics/cat.jpg", "cat.jpg"),
        ("DATA:image/png;base64,hunter2", "data:"),
        ("file:/pictures/cat.jpg", "cat.jpg"),
    ],
)
def test_a_name_shows_no_password(uri: str, name: str) -> None:
    """User, query and payload of a reference are nobody's business but the source's."""
    assert name_of(uri) == name
    assert "hunter2" not in outcome_line(refused(), uri, as_json=False)


def test_the_rate_is_of_what_ended() -> None:
    """What was published and has no outcome yet does not count."""
    tally = Tally(published=50, done=9, failed=1)

    assert tally.line(4.0) == "published 50, done 9, failed 1, 2.5/s in 4.0 s"
    assert "0.0/s" in tally.line(0.0)


def test_lines_that_give_no_request_are_failed_and_not_published() -> None:
    """Else more would seem to fail than was published."""
    tally = Tally(published=12, failed=14, unpublished=2)

    assert tally.line(7.0) == ("published 12, done 0, failed 14 (2 not published), 2.0/s in 7.0 s")


def test_the_bar_says_how_far_how_fast_and_how_long() -> None:
    """And how long the queue before ours is, where that is known."""
    tally = Tally(published=50, done=9, failed=1, skipped=10, ahead=lambda: 1200)

    assert tally.bar(5.0, 40) == (
        "[##########----------] 20/40  ETA 0:10  2.0/s  failed 1  0:05  1,200 ahead in the queue"
    )
    assert tally.bar(5.0, None).startswith("20 done, 50 published  2.0/s")
    assert "ETA" not in Tally().bar(0.0, 40)
