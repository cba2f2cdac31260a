"""What is handed on of the Kafka client's own log."""

import logging

import pytest
from structlog.testing import capture_logs

from consumer.runtime.logging_setup import ClientErrors


@pytest.fixture
def client() -> logging.Logger:
    """A logger of the client's, at a time that the test sets."""
    now = [0.0]
    logger = logging.Logger("aiokafka.producer.sender")
    logger.addHandler(ClientErrors(clock=lambda: now[0]))
    logger.now = now  # type: ignore[attr-defined]
    return logger


def test_errors_come_out_as_warnings_each_once_a_minute(client: logging.Logger) -> None:
    """What differs in its arguments alone is the same; another text is another error."""
    with capture_logs() as lines:
        for second in range(150):
            client.now[0] = second  # type: ignore[attr-defined]
            client.error("Unable connect to node with id %s", second)
            client.error("Heartbeat failed")
            client.warning("Topic %s is not there", "t")
    assert [line["log_level"] for line in lines] == ["warning"] * 6
    assert [line["reason"] for line in lines[:2]] == [
        "Unable connect to node with id 0",
        "Heartbeat failed",
    ]


def test_exception_is_named_and_not_unrolled(client: logging.Logger) -> None:
    """One line an event, whatever the client logs."""
    with capture_logs() as lines:
        try:
            raise ValueError("broken")
        except ValueError:
            client.exception("Unexpected error in fetcher routine")
    [line] = lines
    assert line["reason"] == "Unexpected error in fetcher routine: ValueError('broken')"
    assert "exc_info" not in line
