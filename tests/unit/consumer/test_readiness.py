"""What keeps a process from being ready, and how often the log says so."""

from structlog.testing import capture_logs

from consumer.runtime.readiness import REPEAT_SECONDS, Readiness


def _reported(readiness: Readiness, *times: float) -> list[tuple[str, str]]:
    with capture_logs() as lines:
        for now in times:
            readiness.report(now)
    return [(line["event"], line["cause"]) for line in lines]


def test_ready_without_a_cause() -> None:
    """Causes come and go by name; the rest of them hold on."""
    readiness = Readiness()
    assert not readiness.reasons
    readiness.block("secret:0", "no record verified")
    readiness.block("secret:0", "still none")
    readiness.block("transaction:1", "open for 100 s")
    readiness.clear("transaction:1")
    readiness.clear("never.blocked")
    assert dict(readiness.reasons) == {"secret:0": "still none"}
    readiness.clear("secret:0")
    assert not readiness.reasons


def test_each_cause_is_an_error_a_minute() -> None:
    """Looked at every second, said at once and then once a minute."""
    readiness = Readiness()
    readiness.block("secret:0", "no record verified")
    seconds = range(3 * REPEAT_SECONDS)
    assert _reported(readiness, *seconds) == [("not ready", "secret:0")] * 3


def test_cause_that_is_gone_is_said_once() -> None:
    """A line when it is over, none while all is well."""
    readiness = Readiness()
    readiness.block("secret:0", "no record verified")
    assert _reported(readiness, 0) == [("not ready", "secret:0")]
    readiness.clear("secret:0")
    assert _reported(readiness, 1, 2, 3) == [("no longer blocked", "secret:0")]


def test_cause_that_comes_and_goes_does_not_fill_the_log() -> None:
    """An outsider who makes it flap gets a pair of lines a minute."""
    readiness, lines = Readiness(), []
    for now in range(2 * REPEAT_SECONDS):
        (readiness.block("secret:0", "x") if now % 2 == 0 else readiness.clear("secret:0"))
        lines += _reported(readiness, now)
    assert len(lines) == 4
