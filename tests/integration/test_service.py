"""A real consumer process on a real broker: outcomes, orderly and sudden ends, and plain words."""

import json
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode
from schemas import (
    Code,
    ImageReference,
    JsonObject,
    KeyRing,
    Request,
    Result,
    Signer,
    Task,
    Verifier,
    decode_result,
    encode_request,
    headers,
)
from tests.conftest import Broker, EmbeddedBroker, Topics, create_topics
from tests.consumer_process import (
    MODELS,
    PICTURES,
    consumer_process,
    environment,
    outcomes_by_id,
    read_all,
    run_consumer,
)

pytestmark = pytest.mark.integration

GOOD = PICTURES / "large-red-circle.jpg"


def _request(name: str, uri: str, *tasks: Task) -> bytes:
    request = Request(
        id=name,
        image=ImageReference(uri=uri),
        tasks=tasks or (Task.EMBED,),
        metadata=JsonObject(b'{"big":123456789012345678901234567890}'),
    )
    return encode_request(request)


class Ingest:
    """Publishes values under the secret of the test, as they are."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, secret: str) -> None:
        self._producer, self._topic = producer, topic
        self._signer = Signer(KeyRing(current_id="k1", secrets={"k1": secret.encode()}), topic)

    async def send(self, name: str, value: bytes, *, age_seconds: int = 0) -> None:
        now = int(time.time()) - age_seconds
        signed = self._signer.sign(id=name, timestamp=now, key=b"k", value=value)
        await self.send_raw(value, [*signed, ("x-trace", b"1")])

    async def send_raw(self, value: bytes, record_headers: list[tuple[str, bytes]]) -> None:
        await self._producer.send_and_wait(
            self._topic, key=b"k", value=value, headers=record_headers
        )


@pytest.fixture
async def ingest(broker: Broker, topics: Topics, secret: str) -> AsyncIterator[Ingest]:
    """Where the ingestion service publishes."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        yield Ingest(producer, topics.ingest, secret)


async def _results(broker: Broker, topics: Topics, secret: str) -> dict[str, Result]:
    keys = KeyRing(current_id="k1", secrets={"k1": secret.encode()})
    verifier, results = Verifier(keys, topics.results), {}
    for record in await read_all(broker.bootstrap, topics.results):
        signed = verifier.verify(record.headers, record.key, record.value)
        assert signed.id not in results
        results[signed.id] = decode_result(record.value)
    return results


async def test_every_kind_of_record_gets_its_outcome(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Good, failed and refused records side by side: the contract's outcome for each, once."""
    both = (Task.EMBED, Task.CAPTION)
    await ingest.send("good", _request("good", GOOD.as_uri(), *both))
    await ingest.send("gone", _request("gone", (PICTURES / "gone.jpg").as_uri()))
    await ingest.send("outside", _request("outside", "file:///etc/passwd"))
    await ingest.send("scheme", _request("scheme", "gopher://x/a.jpg"))
    text = PICTURES / "hostile" / "not-a-picture.jpg"
    await ingest.send("text", _request("text", text.as_uri()))
    await ingest.send("stale", _request("stale", GOOD.as_uri()), age_seconds=3 * 86_400)
    await ingest.send("broken", b"{nothing")
    await ingest.send("other", _request("good2", GOOD.as_uri()))
    await ingest.send("v2", b'{"version":2}')
    await ingest.send("good", _request("good", GOOD.as_uri(), *both))  # a repeat
    await ingest.send_raw(b"anything", [("sig-id", b"forged"), ("sig-ts", b"1"), ("sig", b"v1")])
    await ingest.send("last", _request("last", GOOD.as_uri()))
    with consumer_process(
        environment(broker.bootstrap, topics, secret), tmp_path / "log"
    ) as consumer:
        consumer.wait_for("record done", count=12)
        assert consumer.end() == ExitCode.OK
    results = await _results(broker, topics, secret)
    letters = await read_all(broker.bootstrap, topics.dlq)
    codes = {
        dict(letter.headers)["sig-id"].decode(): dict(letter.headers)[headers.DLQ_CODE].decode()
        for letter in letters
    }
    assert codes == {
        "gone": Code.NOT_FOUND,
        "outside": Code.FORBIDDEN_SOURCE,
        "scheme": Code.FORBIDDEN_SOURCE,
        "text": Code.NOT_AN_IMAGE,
        "stale": Code.STALE,
        "broken": Code.MALFORMED,
        "other": Code.ID_MISMATCH,
        "v2": Code.UNSUPPORTED_VERSION,
        "forged": Code.BAD_SIGNATURE,
    }
    assert len(letters) == len(codes)
    assert {name for name, r in results.items() if r.status == "ok"} == {"good", "last"}
    failed = {name: r.error.code for name, r in results.items() if r.error}
    assert failed == {name: codes[name] for name in ("gone", "outside", "scheme", "text")}
    good = results["good"]
    assert good.embedding is not None
    assert good.caption is not None
    assert sum(x * x for x in good.embedding.vector()) == pytest.approx(1, abs=1e-4)
    assert good.metadata is not None
    assert b"123456789012345678901234567890" in good.metadata.as_sent


async def test_dead_letter_is_the_record_byte_for_byte(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Key, value and headers of a refused record come through, with the reason beside them."""
    await ingest.send("broken", b"\xff\x00 not JSON")
    with consumer_process(
        environment(broker.bootstrap, topics, secret), tmp_path / "log"
    ) as consumer:
        consumer.wait_for("record done")
        consumer.end()
    [sent] = await read_all(broker.bootstrap, topics.ingest)
    [letter] = await read_all(broker.bootstrap, topics.dlq)
    assert (letter.key, letter.value) == (sent.key, sent.value)
    assert letter.headers[: len(sent.headers)] == sent.headers
    added = dict(letter.headers[len(sent.headers) :])
    assert added[headers.DLQ_TOPIC] == topics.ingest.encode()
    assert added[headers.DLQ_OFFSET] == b"0"
    assert added[headers.DLQ_STAGE] == b"admit"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_outcomes_are_there_once_whatever_ends_the_process(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path, number: int
) -> None:
    """Ended in the middle of the work and started again: no record is lost and none is doubled."""
    names = [f"r{i}" for i in range(120)]
    for name in names:
        await ingest.send(name, _request(name, GOOD.as_uri(), Task.EMBED))
    settings = environment(
        broker.bootstrap, topics, secret, RECORDS_IN_FLIGHT="16", COMMIT_OUTCOMES="8"
    )
    with consumer_process(settings, tmp_path / "first") as consumer:
        consumer.wait_for("record done", count=10)
        code = consumer.end(number)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else ExitCode.OK)
    with consumer_process(settings, tmp_path / "second") as consumer:
        await ingest.send("end", _request("end", GOOD.as_uri()))
        consumer.wait_for("record done", id="end")
        consumer.end()
    results, letters = await outcomes_by_id(broker.bootstrap, topics)
    assert results == Counter([*names, "end"])
    assert letters == Counter()


async def test_result_too_large_for_its_topic_ends_the_process(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest
) -> None:
    """It says which setting to raise, and the record waits for that; nothing is dropped."""
    small = Topics(ingest=topics.ingest, results=f"{topics.results}.small", dlq=topics.dlq)
    tiny = NewTopic(small.results, 1, 1, topic_configs={"max.message.bytes": "300"})
    await create_topics(broker.bootstrap, tiny)
    await ingest.send("good", _request("good", GOOD.as_uri()))
    done = run_consumer(environment(broker.bootstrap, small, secret))
    assert done.returncode == ExitCode.TOPIC, done.stderr
    assert "max.message.bytes" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    results, letters = await outcomes_by_id(broker.bootstrap, small)
    assert (results, letters) == (Counter(), Counter())


async def test_repeat_is_known_after_a_restart(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """The ids of the window are read back from the log: a second copy stays without an outcome."""
    settings = environment(broker.bootstrap, topics, secret)
    await ingest.send("once", _request("once", GOOD.as_uri()))
    with consumer_process(settings, tmp_path / "first") as consumer:
        consumer.wait_for("record done")
        consumer.end(signal.SIGKILL)
    await ingest.send("once", _request("once", GOOD.as_uri()))
    with consumer_process(settings, tmp_path / "second") as consumer:
        consumer.wait_for("record done", id="once", outcome="repeat")
        consumer.end()
    results, letters = await outcomes_by_id(broker.bootstrap, topics)
    assert (results, letters) == (Counter(["once"]), Counter())


async def test_wrong_secret_drains_nothing(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Everything looks forged: alive, not ready, nothing committed, also by a second start."""
    for i in range(40):
        await ingest.send(f"r{i}", _request(f"r{i}", GOOD.as_uri()))
    wrong = environment(broker.bootstrap, topics, "another-secret-" + "x" * 32)
    for name in ("first", "second"):
        with consumer_process(wrong, tmp_path / name) as consumer:
            [event] = consumer.wait_for("not ready", cause="secret")
            assert "bad_signature" in str(event["reason"])
            assert "Is SECRET_API_KEY the one" in str(event["reason"])
            assert consumer.end() == ExitCode.OK
    assert await outcomes_by_id(broker.bootstrap, topics) == (Counter(), Counter())
    right = environment(broker.bootstrap, topics, secret)
    with consumer_process(right, tmp_path / "right") as consumer:
        consumer.wait_for("record done", count=40, outcome="ok")
        consumer.end()
    results, letters = await outcomes_by_id(broker.bootstrap, topics)
    assert (results, letters) == (Counter(f"r{i}" for i in range(40)), Counter())


async def test_forgeries_stop_nothing(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """150 unsigned bytes before the first good record, over a restart: they wait for it."""
    for i in range(150):
        await ingest.send_raw(b"x", [("sig-id", b"forged.%d" % i)])
    settings = environment(broker.bootstrap, topics, secret)
    with consumer_process(settings, tmp_path / "first") as consumer:
        consumer.wait_for("not ready", cause="secret")
        assert consumer.end() == ExitCode.OK
    assert await outcomes_by_id(broker.bootstrap, topics) == (Counter(), Counter())
    with consumer_process(settings, tmp_path / "second") as consumer:
        consumer.wait_for("not ready", cause="secret")
        for i in range(50):
            await ingest.send(f"r{i}", _request(f"r{i}", GOOD.as_uri()))
        consumer.wait_for("record done", count=50, outcome="ok")
        consumer.wait_for("no longer blocked", cause="secret")
        consumer.wait_for("partition set back", partition=0, offset=0)
        # The first warning comes with the first of them, the rest are in the next minute's.
        [event] = consumer.wait_for("records refused")
        assert re.search(r"[1-9]\d* unsigned", str(event["reason"]))
        assert consumer.end() == ExitCode.OK
    results, letters = await outcomes_by_id(broker.bootstrap, topics)
    assert results == Counter(f"r{i}" for i in range(50))
    assert letters == Counter(f"forged.{i}" for i in range(150))


@pytest.mark.parametrize("kind", ["version 2", "unknown field", "clock 330 s off"])
@pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)
async def test_signed_records_that_are_refused_stop_nothing(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path, kind: str
) -> None:
    """A producer of tomorrow, or one with a bad clock: dead letters, and no doubt of our secret."""
    for i in range(100):
        value = _request(f"r{i}", GOOD.as_uri())
        if kind == "version 2":
            value = value.replace(b'"version":1', b'"version":2')
        elif kind == "unknown field":
            value = value.replace(b'"version":1', b'"version":1,"new":true')
        await ingest.send(f"r{i}", value, age_seconds=330 * (kind == "clock 330 s off"))
    # The embedded broker has CreateTime alone: the same window, by the consumer's clock.
    settings = environment(broker.bootstrap, topics, secret, CREATE_WINDOW_SECONDS="300")
    with consumer_process(settings, tmp_path / "log") as consumer:
        consumer.wait_for("record done", count=100, outcome="refused")
        assert not [event for event in consumer.events() if event["event"] == "not ready"]
        assert consumer.end() == ExitCode.OK
    results, letters = await outcomes_by_id(broker.bootstrap, topics)
    assert (results, letters) == (Counter(), Counter(f"r{i}" for i in range(100)))


@pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)
async def test_replays_between_forgeries_open_no_gate(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """One captured record again for every 6 forgeries of 900 kB: the dead letters keep the rate."""
    for i in range(60):
        if i % 6 == 0:
            await ingest.send("captured", _request("captured", GOOD.as_uri()))
        await ingest.send_raw(b"x" * 900_000, [("sig-id", b"forged.%d" % i)])
    settings = environment(broker.bootstrap, topics, secret, DLQ_BYTES_PER_SECOND="50000")
    with consumer_process(settings, tmp_path / "log") as consumer:
        consumer.wait_for("record done", count=9, outcome="repeat")
        await ingest.send("last", _request("last", GOOD.as_uri()))
        consumer.wait_for("record done", id="last")
        assert consumer.end() == ExitCode.OK
    letters = await read_all(broker.bootstrap, topics.dlq)
    assert len(letters) == 60
    whole = [letter for letter in letters if letter.value == b"x" * 900_000]
    assert 1 <= len(whole) < 10  # 3 MB at once, then 50 kB a second
    assert all(len(letter.value) < 300 for letter in letters if letter not in whole)
    results, _ = await outcomes_by_id(broker.bootstrap, topics)
    assert results == Counter(["captured", "last"])


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"SECRET_API_KEY": ""}, ExitCode.SETTINGS, "SECRET_API_KEY: missing"),
        ({"SECRET_API_KEY": "short"}, ExitCode.SETTINGS, "at least 32 bytes"),
        ({"BLIP_IDLE_SECONDS": "soon"}, ExitCode.SETTINGS, "BLIP_IDLE_SECONDS"),
        ({"FILE_ROOTS": "/not/there"}, ExitCode.SETTINGS, "/not/there"),
        ({"RESULTS_TOPIC": "missing.topic"}, ExitCode.TOPIC, "imagelane topics"),
        ({"DLQ_TOPIC": "missing.dlq"}, ExitCode.TOPIC, "missing.dlq"),
        ({"BOOTSTRAP_SERVERS": "127.0.0.1:1"}, ExitCode.BROKER, "BOOTSTRAP_SERVERS"),
        (
            {"CLIP_MODEL": str(MODELS / "tiny-blip")},
            ExitCode.MODEL,
            "CLIP_MODEL takes clip, siglip",
        ),
        (
            {"BLIP_MODEL": str(MODELS / "tiny-clip")},
            ExitCode.MODEL,
            "BLIP_MODEL takes blip, blip-2",
        ),
        ({"CLIP_MODEL": "/not/there"}, ExitCode.MODEL, "/not/there"),
        ({"DEVICE": "cuda:7"}, ExitCode.DEVICE, "cuda:7"),
    ],
)
@pytest.mark.parametrize("command", [(), ("check",)], ids=["run", "check"])
async def test_what_is_wrong_is_said_in_one_line(
    embedded_broker: EmbeddedBroker,
    secret: str,
    changes: dict[str, str],
    code: ExitCode,
    words: str,
    command: list[str],
) -> None:
    """Each fault ends run and check with its own exit code and a line, and no traceback."""
    topics = Topics(ingest="words.ingest", results="words.results", dlq="words.dlq")
    with suppress(TopicAlreadyExistsError):
        await create_topics(
            embedded_broker.bootstrap,
            *(
                NewTopic(name, 1, 1, topic_configs={"compression.type": "uncompressed"})
                for name in (topics.ingest, topics.results, topics.dlq)
            ),
        )
    settings = environment(embedded_broker.bootstrap, topics, secret, **changes)
    done = run_consumer(settings, *command)
    assert done.returncode == code, done.stderr
    said = done.stdout + done.stderr
    assert words in said
    assert "Traceback" not in said
    assert len(done.stderr.splitlines()[-1]) < 400


async def test_every_bad_setting_is_reported_at_once(secret: str) -> None:
    """Nobody has to start the process once a fault."""
    topics = Topics(ingest="a", results="a", dlq="c")
    done = run_consumer(
        environment("x:1", topics, "short", DEVICE="tpu", EMBED_BATCH="many", COMMIT_OUTCOMES="0")
    )
    assert done.returncode == ExitCode.SETTINGS
    for name in ("SECRET_API_KEY", "DEVICE", "EMBED_BATCH", "COMMIT_OUTCOMES"):
        assert name in done.stderr
    assert "short" not in done.stderr


async def test_check_finds_nothing_wrong(broker: Broker, topics: Topics, secret: str) -> None:
    """With everything there, every line says ok; the broker and the secret's print are named."""
    here = environment(broker.bootstrap, topics, secret)
    done = run_consumer(here, "check")
    assert done.returncode == 0, done.stdout
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    fingerprint = ConsumerSettings.from_env(here).fingerprints["k1"]
    assert f"keys k1 (fingerprint {fingerprint})" in done.stdout
    port = broker.bootstrap.rpartition(":")[2]
    assert f":{port}: {topics.ingest} (1 partitions)" in done.stdout
    assert "; CLIP takes up to 32 at once" in done.stdout


async def test_log_lines_are_json_with_stable_keys(
    broker: Broker, topics: Topics, secret: str, ingest: Ingest, tmp_path: Path
) -> None:
    """One line a record, which a machine can read and which holds no secret."""
    await ingest.send("good", _request("good", GOOD.as_uri()))
    log = tmp_path / "log"
    with consumer_process(environment(broker.bootstrap, topics, secret), log) as consumer:
        consumer.wait_for("record done")
        consumer.end()
    [line] = [json.loads(text) for text in log.read_text().splitlines() if "record done" in text]
    assert {"time", "level", "event", "id", "outcome", "partition", "offset"} <= line.keys()
    assert secret not in log.read_text()
