"""The way of one record: each verdict becomes its outcome, and anything else passes through."""

from typing import Any

import pytest

from consumer.errors import Failed
from consumer.outcome import ErrorOutcome, OkOutcome, RefusedOutcome, RepeatOutcome
from consumer.record.process import Pipeline
from schemas import Code, ImageReference, Request, Task, TimingMs
from tests.fakes import NOW, FakeInferences, FakePreparation, fake_pipeline, signed_record


def _stages(**changes: Any) -> Pipeline:
    return fake_pipeline(**({"now": lambda: NOW + 1.5} | changes))


def _request(name: str = "a", tasks: tuple[Task, ...] = (Task.EMBED, Task.CAPTION)) -> Request:
    return Request(id=name, image=ImageReference(uri="file:///a.png"), tasks=tasks)


async def test_good_record_gets_what_it_asked_for() -> None:
    """An authentic record leads to vector, caption and the time each stage took."""
    outcome = await _stages().process(signed_record(_request()))
    assert isinstance(outcome, OkOutcome)
    assert outcome.inference.caption == "a red circle"
    assert outcome.queue_ms == 1500
    assert outcome.image.fetch_ms == 1.0
    assert outcome.inference.caption_ms == 3.0


async def test_record_that_asks_for_an_embedding_wakes_no_captioner() -> None:
    """Only a caption makes BLIP expected."""
    inferences = FakeInferences()
    await _stages(inferences=inferences).process(signed_record(_request(tasks=(Task.EMBED,))))
    assert inferences.most_expected == 0


async def test_caption_is_expected_from_admission_to_the_end() -> None:
    """The captioner can load while the image is fetched, and is let go when the record ends."""
    inferences = FakeInferences()
    faults = {"a": Failed(Code.NOT_FOUND, "gone")}
    pipeline = _stages(inferences=inferences, preparation=FakePreparation(faults=faults))
    await pipeline.process(signed_record(_request()))
    assert (inferences.most_expected, inferences.expected) == (1, 0)


async def test_failed_fetch_is_an_error_with_its_code() -> None:
    """A verdict of a later stage keeps code, message and attempts."""
    fault = Failed(Code.IMAGE_UNAVAILABLE, "no answer")
    fault.attempts = 4
    pipeline = _stages(preparation=FakePreparation(faults={"a": fault}))
    outcome = await pipeline.process(signed_record(_request()))
    assert isinstance(outcome, ErrorOutcome)
    assert (outcome.code, outcome.message, outcome.attempts) == (
        Code.IMAGE_UNAVAILABLE,
        "no answer",
        4,
    )


async def test_image_that_fails_in_decoding_has_the_time_of_its_fetch() -> None:
    """And a clock of the machine that is set back meanwhile changes no time but the queue's."""
    fault = Failed(Code.CORRUPT_IMAGE, "no end")
    fault.fetch_ms, fault.decode_ms = 31.0, 5.0
    wall, clock = iter([NOW + 1.5, NOW - 3600]), iter([100.0, 100.25])
    pipeline = _stages(
        preparation=FakePreparation(faults={"a": fault}),
        now=lambda: next(wall),
        clock=lambda: next(clock),
    )
    outcome = await pipeline.process(signed_record(_request()))
    assert isinstance(outcome, ErrorOutcome)
    assert outcome.timing == TimingMs(queue=1500, fetch=31, decode=5, total=250)


async def test_forged_record_is_refused_before_anything_is_fetched() -> None:
    """Nothing of a record without a signature reaches a later stage."""
    preparation = FakePreparation(faults={"a": AssertionError("must not be asked")})
    record = signed_record(_request(), headers=[])
    outcome = await _stages(preparation=preparation).process(record)
    assert isinstance(outcome, RefusedOutcome)
    assert outcome.code is Code.UNSIGNED


def _text(text: str = "a red car", **changes: Any) -> Request:
    return Request(id="t", text=text, **changes)


async def test_text_is_embedded_without_an_image() -> None:
    """It is neither fetched nor decoded, and wakes no captioner."""
    inferences = FakeInferences()
    preparation = FakePreparation(faults={"t": AssertionError("must not be asked")})
    pipeline = _stages(preparation=preparation, inferences=inferences)
    outcome = await pipeline.process(signed_record(_text()))
    assert isinstance(outcome, OkOutcome)
    assert outcome.image is None
    assert outcome.inference.vector is not None
    assert inferences.most_expected == 0


async def test_text_that_is_too_long_is_an_error_with_its_code() -> None:
    """It fails at the last stage, and took no time in those of images."""
    outcome = await _stages().process(signed_record(_text("!!!")))
    assert isinstance(outcome, ErrorOutcome)
    assert (outcome.code, outcome.attempts) == (Code.TEXT_TOO_LONG, 1)
    assert (outcome.timing.fetch, outcome.timing.decode) == (None, None)


@pytest.mark.parametrize("urgent", [True, False])
async def test_what_comes_by_the_queries_topic_is_urgent(urgent: bool) -> None:
    """Text and image alike, and nothing that comes by the other topic."""
    inferences = FakeInferences()
    pipeline = _stages(inferences=inferences, urgent=urgent)
    await pipeline.process(signed_record(_text()))
    await pipeline.process(signed_record(_request(), offset=1))
    assert inferences.urgent == (2 if urgent else 0)


async def test_second_record_with_an_id_is_a_repeat() -> None:
    """An authentic repeat inside the window is counted, not processed."""
    pipeline = _stages()
    await pipeline.process(signed_record(_request(), offset=0))
    assert await pipeline.process(signed_record(_request(), offset=1)) == RepeatOutcome(id="a")


async def test_unforeseen_error_is_no_outcome() -> None:
    """A fault of ours is not blamed on the record."""
    pipeline = _stages(preparation=FakePreparation(faults={"a": ZeroDivisionError()}))
    with pytest.raises(ZeroDivisionError):
        await pipeline.process(signed_record(_request()))


async def test_append_in_our_future_is_no_negative_queue_time() -> None:
    """Clocks differ; a queue time is never below zero."""
    outcome = await _stages(now=lambda: NOW - 5).process(signed_record(_request()))
    assert isinstance(outcome, OkOutcome)
    assert outcome.queue_ms == 0
