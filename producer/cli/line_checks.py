"""The checks of a topic's reader, made on a line of the console tools."""

from imagelane.settings import WireSettings
from producer.cli.console_lines import ConsoleLine
from producer.verification import verified_result
from schemas import Freshness, Record, Refused, TimestampType, Verifier, admit


def check_line(
    line: ConsoleLine, topic: str, settings: WireSettings, *, at: float | None, now: float
) -> str:
    """Return the signed id of a line, after the checks of the topic's reader.

    The time of the append is `at` (Unix seconds), else the printed time, else `now`. Lines of the
    ingest topic are requests, of the results topic results; in any other topic the signature alone
    is checked.

    Raises:
        Refused: with the code of the topic's reader.
    """
    verifier = Verifier(settings.keys, topic)
    timestamp_type, timestamp_ms = line.timestamp_type, line.timestamp_ms
    if at is not None or timestamp_ms is None:
        timestamp_type = TimestampType.APPEND
        timestamp_ms = int((now if at is None else at) * 1000)
    readings = [
        Record(
            topic=topic,
            partition=0,
            offset=0,
            timestamp_ms=timestamp_ms,
            timestamp_type=timestamp_type,
            key=key,
            value=value,
            headers=line.headers,
        )
        for key, value in line.readings
    ]
    # No reading verifies: the first one gives the reason.
    record = next((one for one in readings if _is_signed(one, verifier)), readings[0])
    if topic in (settings.ingest_topic, settings.queries_topic):
        return admit(record, verifier=verifier, freshness=Freshness(), now=now).id
    if topic == settings.results_topic:
        return verified_result(record, verifier).id
    return verifier.verify(record.headers, record.key, record.value).id


def _is_signed(record: Record, verifier: Verifier) -> bool:
    try:
        verifier.verify(record.headers, record.key, record.value)
    except Refused:
        return False
    return True
