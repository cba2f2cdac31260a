"""The outcomes of published requests, and the wait for them.

A result counts if its signature holds. A refused record has a dead letter and no result; dead
letters are not signed, so `refused` is information and not proof.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

from aiokafka import AIOKafkaConsumer, TopicPartition

from producer.connection import answering, poll, reader
from producer.dead_letters import Place, named_place, text_of
from producer.settings import ProducerSettings
from producer.verification import verified_result
from schemas import KeyRing, Record, Refused, Result, Stage, Verifier
from schemas.headers import DLQ_CODE, DLQ_MESSAGE, DLQ_STAGE, SIG_ID

_POLL_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one request: its result (`ok` or `error`), or why there is none.

    `code` and `message` are an error's or a refusal's, `value` is the result as received, `item`
    the argument of `process`. `timeout` and `unpublished` come from `process_many`, `unverifiable`
    from the command line alone, with the record's place as `id`: the real one may be forged.
    """

    id: str
    status: Literal["ok", "error", "refused", "timeout", "unpublished", "unverifiable"]
    result: Result | None = None
    code: str | None = None
    message: str | None = None
    value: bytes | None = None
    item: Any = None


class Waiting:
    """One request whose outcome may come before or after the broker's acknowledgement."""

    __slots__ = ("__weakref__", "_dead_letters", "_place", "outcome")

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._place: Place | None = None
        self._dead_letters: dict[Place, Outcome] = {}

    def acknowledged(self, place: Place) -> None:
        """Note the record's place: a dead letter is ours if it names that place."""
        self._place = place
        if place in self._dead_letters:
            self.conclude(self._dead_letters[place])
        self._dead_letters.clear()

    def refused(self, place: Place, outcome: Outcome) -> None:
        """Note a dead letter with our id."""
        if self._place is None:
            self._dead_letters[place] = outcome
        elif self._place == place:
            self.conclude(outcome)

    def conclude(self, outcome: Outcome) -> None:
        """End the wait; the first outcome counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Outcomes:
    """Hands results and dead letters to the requests that wait for them."""

    def __init__(self, keys: KeyRing, results_topic: str) -> None:
        self._verifier = Verifier(keys, results_topic)
        self._results_topic = results_topic
        # Weak: an entry ends with its `Published`, so the mapping does not grow for ever.
        self._waiting: WeakValueDictionary[str, Waiting] = WeakValueDictionary()
        self._reached: dict[tuple[str, int], int] = {}
        self.unverifiable_count = 0
        self.outcome_count = 0

    def ahead_of(self, place: Place) -> int | None:
        """Return how many records are between the furthest one with an outcome and `place`."""
        topic, partition, offset = place
        reached = self._reached.get((topic, partition))
        return None if reached is None or reached >= offset else offset - reached - 1

    def expect(self, id: str) -> Waiting:
        """Begin to wait for `id`, before it is published; an id twice shares one outcome."""
        return self._waiting.setdefault(id, Waiting())

    def take(self, record: Record) -> None:
        """Conclude the wait for the outcome in `record`, if there is one."""
        if record.topic == self._results_topic:
            self._take_result(record)
        else:
            self._take_dead_letter(record)

    def _take_result(self, record: Record) -> None:
        try:
            result = verified_result(record, self._verifier)
        except Refused:
            self.unverifiable_count += 1
            return
        source = result.source
        self._note(Place(source.topic, source.partition, source.offset))
        waiting = self._waiting.get(result.id)
        if waiting is not None:
            waiting.conclude(outcome_of(result, record.value))

    def _note(self, place: Place) -> None:
        """Count an outcome of the record at `place`, ours or not."""
        topic, partition, offset = place
        self.outcome_count += 1
        reached = self._reached.get((topic, partition), -1)
        self._reached[topic, partition] = max(reached, offset)

    def _take_dead_letter(self, record: Record) -> None:
        try:
            place = named_place(record)
        except ValueError:
            return  # not one of ours
        self.outcome_count += 1
        id = text_of(record, SIG_ID)
        waiting = self._waiting.get(id)
        # A dead letter of a later stage comes with an error result, and that one is signed.
        if waiting is None or text_of(record, DLQ_STAGE) != Stage.ADMIT:
            return
        code, message = text_of(record, DLQ_CODE), text_of(record, DLQ_MESSAGE)
        waiting.refused(place, Outcome(id=id, status="refused", code=code, message=message))


def outcome_of(result: Result, value: bytes | None) -> Outcome:
    """Return the outcome of a verified result; `value` is its JSON."""
    return Outcome(
        id=result.id,
        status=result.status,
        result=result,
        code=result.error.code if result.error else None,
        message=result.error.message if result.error else None,
        value=value,
    )


@asynccontextmanager
async def following(
    settings: ProducerSettings, partitions: list[TopicPartition], outcomes: Outcomes
) -> AsyncIterator[asyncio.Task[None]]:
    """Follow these partitions from their present ends, as a task, while the body runs."""
    async with reader(settings) as consumer:
        consumer.assign(partitions)
        async with answering(settings, "asking for the ends of the results"):
            for partition, offset in (await consumer.end_offsets(partitions)).items():
                consumer.seek(partition, offset)
        task = asyncio.create_task(_follow(consumer, outcomes))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})


async def _follow(consumer: AIOKafkaConsumer, outcomes: Outcomes) -> None:
    while True:
        for record in await poll(consumer, _POLL_MS):
            outcomes.take(record)
