"""What the demo decides: whether all came as it must, which pictures are near, what a log says."""

import json
from pathlib import Path

import pytest

from examples.demo.expectations import Sent, caption_faults, faults_of, is_complete, nearest
from examples.demo.invalid_requests import bad_requests
from examples.demo.outputs import DeadLetter, Outputs
from examples.demo.plan import PICTURES, Plan
from examples.processes import parse_event
from imagelane.exits import FatalError
from schemas import Code, Failure, ImageInfo, Result, Source, TimingMs


def ok_result(place: tuple[int, int]) -> Result:
    image = ImageInfo(uri="file:///a.png", sha256="0" * 64, width=1, height=1, format="PNG")
    return Result(id="a", status="ok", image=image, timing_ms=TimingMs(), source=source(place))


def error_result(place: tuple[int, int], code: Code) -> Result:
    failure = Failure(code=code, message="why", attempts=1)
    return Result(id="a", status="error", error=failure, timing_ms=TimingMs(), source=source(place))


def source(place: tuple[int, int]) -> Source:
    return Source(topic="image.ingest", partition=place[0], offset=place[1])


GOOD = Sent(what="good", place=(0, 0))
MISSING = Sent(what="missing", place=(0, 1), code=Code.NOT_FOUND)
FORGED = Sent(what="forged", place=(0, 2), code=Code.BAD_SIGNATURE)
REPEAT = Sent(what="repeat", place=(0, 3), repeat=True)
SENT = [GOOD, MISSING, FORGED, REPEAT]


def as_it_must_be() -> dict[tuple[int, int], Outputs]:
    return {
        GOOD.place: Outputs(results=[ok_result(GOOD.place)]),
        MISSING.place: Outputs(
            results=[error_result(MISSING.place, Code.NOT_FOUND)],
            dead_letters=[DeadLetter(code="not_found", message="why")],
        ),
        FORGED.place: Outputs(dead_letters=[DeadLetter(code="bad_signature", message="why")]),
    }


def test_the_right_outcomes_are_complete_and_without_fault() -> None:
    """A result, a result with a dead letter, a dead letter alone, and nothing: all as it must."""
    seen = as_it_must_be()

    assert is_complete(SENT, seen)
    assert faults_of(SENT, seen) == []


@pytest.mark.parametrize(
    ("place", "found", "fault"),
    [
        (GOOD.place, Outputs(), "good: 0 results, not 1"),
        (GOOD.place, Outputs(results=[ok_result(GOOD.place)] * 2), "good: 2 results, not 1"),
        (
            GOOD.place,
            Outputs(results=[error_result(GOOD.place, Code.CORRUPT_IMAGE)]),
            "good: corrupt_image, not ok",
        ),
        (
            MISSING.place,
            Outputs(results=[error_result(MISSING.place, Code.NOT_FOUND)]),
            "missing: 0 dead letters, not 1",
        ),
        (
            FORGED.place,
            Outputs(dead_letters=[DeadLetter(code="stale", message="")]),
            "forged: stale, not bad_",
        ),
        (FORGED.place, Outputs(results=[ok_result(FORGED.place)]), "forged: ok, not bad_signature"),
        (REPEAT.place, Outputs(results=[ok_result(REPEAT.place)]), "repeat: 1 results, not 0"),
        (
            (0, 9),
            Outputs(dead_letters=[DeadLetter(code="stale", message="")]),
            "1 outcomes of records that no",
        ),
    ],
)
def test_whatever_else_comes_is_a_fault(place: tuple[int, int], found: Outputs, fault: str) -> None:
    """Nothing, one too many, another code, or an outcome of nothing that was sent is told."""
    (told,) = faults_of(SENT, as_it_must_be() | {place: found})

    assert told.startswith(fault)


def test_what_has_not_come_yet_is_not_complete() -> None:
    """The error result alone is half of an outcome."""
    half = {MISSING.place: Outputs(results=[error_result(MISSING.place, Code.NOT_FOUND)])}

    assert not is_complete(SENT, as_it_must_be() | half)


def test_nine_captions_in_ten_must_be_right() -> None:
    """One of ten may be wrong, two may not; a picture without a caption is not right."""
    truths = {str(number): "a red circle" for number in range(10)}

    assert caption_faults(truths | {"0": "a blue circle"}, truths) == []
    (fault,) = caption_faults({k: v for k, v in truths.items() if k not in "01"}, truths)
    assert fault.startswith("8 of 10")


def test_nearest_is_by_cosine_and_leaves_out_the_picture_itself() -> None:
    """The nearest comes first, no more than were asked for."""
    vectors = {"a": (1.0, 0.0), "far": (0.0, 1.0), "near": (0.8, 0.6), "opposite": (-1.0, 0.0)}

    found = nearest(vectors, "a", 2)

    assert [(one.name, round(one.cosine, 6)) for one in found] == [("near", 0.8), ("far", 0.0)]


def test_log_lines_become_events_and_other_output_does_not() -> None:
    """A line of the consumer's log is an event; a library's warning is not, JSON or not."""
    line = json.dumps({"event": "record done", "outcome": "repeat", "partition": 0, "offset": 7})

    event = parse_event(line, 1.5)

    assert event is not None
    assert (event.name, event.outcome, event.place, event.at) == (
        "record done",
        "repeat",
        (0, 7),
        1.5,
    )
    assert [parse_event(text, 0.0) for text in ("Warning: torch", "7", "{}", "")] == [None] * 4


def test_topics_on_a_cluster_of_somebody_are_the_runs_own() -> None:
    """With BOOTSTRAP_SERVERS no topic or group has a name that could be there already."""
    there = Plan.from_env({"BOOTSTRAP_SERVERS": "kafka:9092"}, "ab12")
    here = Plan.from_env({"BOOTSTRAP_SERVERS": ""}, "ab12")

    assert here.ingest_topic == "image.ingest"
    assert all(
        "ab12" in name
        for name in (there.ingest_topic, there.results_topic, there.dlq_topic, there.group_id)
    )


def test_pictures_of_ones_own_bring_no_hostile_files(tmp_path: Path) -> None:
    """A folder of the user's has no truth, and none of our hostile files."""
    (tmp_path / "cat.jpg").write_bytes(b"")

    plan = Plan.from_env({"PICTURES": str(tmp_path)}, "t")

    assert [picture.name for picture in plan.good()] == ["cat.jpg"]
    assert not plan.ours
    assert {bad.code for bad in bad_requests(plan)} == {Code.FORBIDDEN_SOURCE, Code.NOT_FOUND}


@pytest.mark.parametrize(
    "environment",
    [{"MODELS": "large"}, {"PICTURES": "/no/such/folder"}],
    ids=["models", "pictures"],
)
def test_what_cannot_be_shown_is_said_at_once(environment: dict[str, str]) -> None:
    """An unknown checkpoint or folder ends the demo before anything is started."""
    with pytest.raises(FatalError, match=next(iter(environment))):
        Plan.from_env(environment, "t")


def test_folder_without_pictures_is_said(tmp_path: Path) -> None:
    """An empty folder ends the demo as well."""
    with pytest.raises(FatalError, match="no pictures"):
        Plan.from_env({"PICTURES": str(tmp_path)}, "t").good()


def test_every_hostile_file_is_shown() -> None:
    """A hostile file that is added is added to the demo as well."""
    shown = {bad.uri.rpartition("/")[2] for bad in bad_requests(Plan.from_env({}, "t"))}

    assert {path.name for path in (PICTURES / "hostile").iterdir()} <= shown
