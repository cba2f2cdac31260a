"""Whether a record that was read, or printed by a console tool, is what it claims to be."""

from dataclasses import dataclass

from producer.lines import ConsoleLine
from schemas import Code, Freshness, Record, Refused, Result, TimestampType, Verifier
from schemas import admit as admit_request
from schemas.codec import decode_result


def verified_result(record: Record, verifier: Verifier) -> Result:
    """Return the result that an authentic record of the results topic holds.

    Raises:
        Refused: the signature does not hold, or what it vouches for is no result.
    """
    signed = verifier.verify(record.headers, record.key, record.value)
    if record.value is None:
        raise Refused(Code.MALFORMED, "the value is null")
    result = decode_result(record.value)
    if result.id != signed.id:
        raise Refused(
            Code.ID_MISMATCH, f"the value's id is {result.id}, the signature's {signed.id}"
        )
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChecker:
    """Checks console lines of one topic as its reader would: the ingest topic's as requests."""

    topic: str
    verifier: Verifier
    ingest_topic: str
    results_topic: str

    def check(self, line: ConsoleLine, *, at: float | None, now: float) -> str:
        """Return the id that the line's signature vouches for.

        `at` (Unix seconds) stands for the time of the append; without it the printed time counts,
        else `now`.

        Raises:
            Refused: with the code that the reader of the topic would give.
        """
        record = self._authentic(line, at, now)
        if self.topic == self.ingest_topic:
            request = admit_request(record, verifier=self.verifier, freshness=Freshness(), now=now)
            return request.id
        if self.topic == self.results_topic:
            return verified_result(record, self.verifier).id
        return self.verifier.verify(record.headers, record.key, record.value).id

    def _authentic(self, line: ConsoleLine, at: float | None, now: float) -> Record:
        """Return the reading of the line that the signature holds for."""
        first: Refused | None = None
        timestamp_type, timestamp_ms = line.timestamp_type, line.timestamp_ms
        if at is not None or timestamp_ms is None:
            timestamp_type = TimestampType.APPEND
            timestamp_ms = int((now if at is None else at) * 1000)
        for key, value in line.readings:
            record = Record(
                topic=self.topic,
                partition=0,
                offset=0,
                timestamp_ms=timestamp_ms,
                timestamp_type=timestamp_type,
                key=key,
                value=value,
                headers=line.headers,
            )
            try:
                self.verifier.verify(record.headers, key, value)
            except Refused as refused:
                first = first or refused
            else:
                return record
        assert first is not None, "a line has one reading at least"
        raise first
