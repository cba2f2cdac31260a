"""A reader of its own that sees what every reader of committed records sees, to the last one."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from imagelane.exits import ExitCode, FatalError
from producer.connection import existing_partitions, reader, to_record
from producer.settings import ProducerSettings
from producer.verification import verified_result
from schemas import Record, Refused, Result, Verifier
from schemas.headers import DLQ_CODE, DLQ_MESSAGE, DLQ_OFFSET, DLQ_PARTITION

_POLL_MS: Final = 200
Place = tuple[int, int]  # partition and offset of the request


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What a dead letter says."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Outputs:
    """What there is to see of one request."""

    results: list[Result] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


class OutputReader:
    """Collects results (only those whose signature holds) and dead letters by their request."""

    def __init__(self, settings: ProducerSettings, consumer: AIOKafkaConsumer) -> None:
        self._verifier = Verifier(settings.keys, settings.results_topic)
        self._results_topic = settings.results_topic
        self._consumer = consumer
        self._news = asyncio.Condition()
        self._seen: defaultdict[Place, Outputs] = defaultdict(Outputs)
        self.unverifiable_count = 0

    @property
    def seen(self) -> Mapping[Place, Outputs]:
        return self._seen

    async def until(
        self, what: str, true: Callable[[Mapping[Place, Outputs]], bool], timeout_seconds: float
    ) -> None:
        """Wait until `true` holds of what was seen.

        Raises:
            FatalError: it never did.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self._news:
                await self._news.wait_for(lambda: true(self._seen))
        except TimeoutError as exc:
            raise FatalError(ExitCode.FAILED, f"not seen in {timeout_seconds:g} s: {what}") from exc

    async def catch_up(self, timeout_seconds: float) -> None:
        """Read on to the present ends of both topics.

        Raises:
            FatalError: they were not reached.
        """
        partitions = list(self._consumer.assignment())
        try:
            async with asyncio.timeout(timeout_seconds):
                for partition, end in (await self._consumer.end_offsets(partitions)).items():
                    while await self._consumer.position(partition) < end:
                        async with self._news:
                            await self._news.wait()
        except TimeoutError as exc:
            raise FatalError(ExitCode.FAILED, "the ends of the results were never reached") from exc

    async def read(self) -> None:
        """Take in what comes, for ever."""
        while True:
            arrived = await self._consumer.getmany(timeout_ms=_POLL_MS)
            async with self._news:
                for records in arrived.values():
                    for record in records:
                        self._take(to_record(record))
                self._news.notify_all()

    def _take(self, record: Record) -> None:
        if record.topic == self._results_topic:
            try:
                result = verified_result(record, self._verifier)
            except Refused:
                self.unverifiable_count += 1
            else:
                place = (result.source.partition, result.source.offset)
                self._seen[place].results.append(result)
            return
        text = {name: value.decode(errors="replace") for name, value in record.headers}
        place = (int(text[DLQ_PARTITION]), int(text[DLQ_OFFSET]))
        dead_letter = DeadLetter(code=text[DLQ_CODE], message=text[DLQ_MESSAGE])
        self._seen[place].dead_letters.append(dead_letter)


@asynccontextmanager
async def open_outputs(settings: ProducerSettings) -> AsyncIterator[OutputReader]:
    """Read results and dead letters from their beginning while the body runs.

    Raises:
        FatalError: no broker answers, or a topic does not exist.
    """
    topics = (settings.results_topic, settings.dlq_topic)
    partitions: list[TopicPartition] = await existing_partitions(settings, topics)
    async with reader(settings) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        outputs = OutputReader(settings, consumer)
        reading = asyncio.create_task(outputs.read())
        try:
            yield outputs
        finally:
            reading.cancel()
            await asyncio.wait({reading})
