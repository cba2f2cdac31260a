"""Kafka with TLS, SASL and an authorizer: every way in, every refusal, the least rights."""

import asyncio
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka.admin import NewTopic

from consumer.parts import open_cluster
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from producer import ProducerSettings, Publisher, ResultReader, image_request
from producer.connection import administration
from producer.settings import StatusSettings
from producer.status import LastResult
from producer.status_reader import read_status
from tests.conftest import ROOT, Topics, create_topics, require_docker
from tests.consumer_process import Running, consumer_process, environment
from tests.containers import KAFKA_IMAGE
from tests.secured_kafka import USERS, SecuredKafka, secured_kafka
from tests.token_server import AUDIENCE, CLIENT_ID, CLIENT_SECRET, TokenServer

pytestmark = [pytest.mark.integration, pytest.mark.docker]

SUBJECT = "tests.faults.subject"
FULL = os.environ.get("FAULTS") == "full"
PATIENCE_SECONDS = 60
SASL_WAYS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "clear", "OAUTHBEARER")


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenServer]:
    with TokenServer.running() as server:
        yield server


@pytest.fixture(scope="module")
def secured(
    tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecuredKafka]:
    require_docker(KAFKA_IMAGE)
    folder = tmp_path_factory.mktemp("secured")
    with secured_kafka(folder, tokens.jwks(), AUDIENCE) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def granted(secured: SecuredKafka) -> Topics:
    """Topics, and the rights of deploy/kafka-acls.sh for both sides."""
    tag = uuid4().hex[:8]
    topics = Topics(ingest=f"in.{tag}", results=f"out.{tag}", dlq=f"dlq.{tag}")
    time_type = {"message.timestamp.type": "LogAppendTime", "compression.type": "uncompressed"}
    ingest = NewTopic(topics.ingest, 1, 1, topic_configs=time_type)
    others = [NewTopic(name, 1, 1) for name in (topics.results, topics.dlq)]
    asyncio.run(create_topics(secured.bootstrap, ingest, *others))
    for side in ("consumer", "ingestion"):
        grant(secured, topics, side)
    return topics


def grant(
    kafka: SecuredKafka, topics: Topics, side: str, group: str | None = None, **more: str
) -> None:
    own = {
        "PATH": os.environ["PATH"],
        "KAFKA_ACLS": kafka.acls_command,
        "INGEST_TOPIC": topics.ingest,
        "QUERIES_TOPIC": f"queries.{topics.ingest}",
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "GROUP_ID": group or f"group.{topics.ingest}",
        **more,
    }
    principal = "ingestion" if side == "reader" else side
    command = [str(ROOT / "deploy" / "kafka-acls.sh"), side, f"User:{principal}"]
    command += ["--bootstrap-server", kafka.bootstrap]
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def way(kafka: SecuredKafka, name: str, side: str, tokens: TokenServer) -> dict[str, str]:
    """Return the settings of one way in, for the user of one side."""
    tls = {"KAFKA_CA_FILE": str(kafka.files.ca)}
    login = {"KAFKA_USERNAME": side, "KAFKA_PASSWORD": USERS[side]}
    if name == "mutual":
        own = {"KAFKA_CERT_FILE": str(kafka.files.cert), "KAFKA_KEY_FILE": str(kafka.files.key)}
        return at(kafka, "MUTUAL", "SSL") | tls | own
    if name == "clear":
        scram = {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
        return at(kafka, "CLEAR", "SASL_PLAINTEXT") | login | scram
    if name == "OAUTHBEARER":
        oauth = {
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_OAUTH_TOKEN_URL": tokens.url,
            "KAFKA_OAUTH_CLIENT_ID": CLIENT_ID,
            "KAFKA_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        }
        return at(kafka, "TOKEN", "SASL_SSL") | tls | oauth
    return at(kafka, "LOGIN", "SASL_SSL") | tls | login | {"KAFKA_SASL_MECHANISM": name}


def at(kafka: SecuredKafka, listener: str, protocol: str) -> dict[str, str]:
    return {"BOOTSTRAP_SERVERS": kafka.at(listener), "KAFKA_SECURITY_PROTOCOL": protocol}


def settings_of(topics: Topics, secret: str, changes: Mapping[str, str]) -> dict[str, str]:
    settings = environment("", topics, secret, **changes)
    return settings | {"BROKER_TIMEOUT_SECONDS": "20"}


async def publish_one(settings: Mapping[str, str]) -> str:
    """Publish one request and return the status of its outcome."""
    async with Publisher(ProducerSettings.from_env(settings), results=True) as publisher:
        published = await publisher.publish(image_request("stub:ok"))
        return (await publisher.result(published, timeout_seconds=PATIENCE_SECONDS)).status


def test_every_way_in_takes_a_record_to_its_result(
    secured: SecuredKafka, granted: Topics, tokens: TokenServer, secret: str, tmp_path: Path
) -> None:
    """Both sides by each way, with the rights of the table and none besides."""
    for name in ("mutual", *SASL_WAYS):
        ours = settings_of(granted, secret, way(secured, name, "consumer", tokens))
        side = "ingestion" if name in SASL_WAYS[:4] else "consumer"
        theirs = settings_of(granted, secret, way(secured, name, side, tokens))
        if side == "consumer":  # the certificate and the token are of one user
            grant_ingestion_to_consumer(secured, granted)
        with consumer_process(ours, tmp_path / f"{name}.log", SUBJECT) as running:
            running.wait_for("partition assigned")
            assert asyncio.run(publish_one(theirs)) == "ok"
            assert running.end() == ExitCode.OK


_done: set[str] = set()


def grant_ingestion_to_consumer(kafka: SecuredKafka, topics: Topics) -> None:
    if topics.ingest in _done:
        return
    _done.add(topics.ingest)
    for topic, operations in ((topics.ingest, ["Write"]), (topics.dlq, ["Read"])):
        arguments = ["--add", "--force", "--allow-principal", "User:consumer", "--topic", topic]
        for operation in operations:
            arguments += ["--operation", operation]
        kafka.run_class("org.apache.kafka.tools.AclCommand", *arguments)


REFUSALS = {
    "unknown authority": (
        "LOGIN",
        {"KAFKA_CA_FILE": "{other_ca}"},
        ExitCode.TLS,
        "cannot be trusted",
    ),
    "other name": ("name", {}, ExitCode.TLS, "not for this name"),
    "no certificate": ("mutual", {}, ExitCode.TLS, "does it want KAFKA_CERT_FILE"),
    "certificate of another maker": (
        "mutual",
        {"KAFKA_CERT_FILE": "{stranger_cert}", "KAFKA_KEY_FILE": "{stranger_key}"},
        ExitCode.TLS,
        "does it want KAFKA_CERT_FILE",
    ),
    "wrong password": (
        "LOGIN",
        {"KAFKA_PASSWORD": "wrong"},
        ExitCode.ACCESS,
        "refuses user consumer.*KAFKA_PASSWORD",
    ),
    "unknown mechanism": (
        "TOKEN",
        {"KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p"},
        ExitCode.ACCESS,
        "does not take KAFKA_SASL_MECHANISM=PLAIN",
    ),
    "wrong client secret": (
        "TOKEN",
        {"KAFKA_OAUTH_CLIENT_SECRET": "wrong"},
        ExitCode.ACCESS,
        "answered 401",
    ),
    "expired token": (
        "TOKEN",
        {"KAFKA_TOKEN_PROVIDER": f"{__name__}:expired_token"},
        ExitCode.ACCESS,
        "refuses the token",
    ),
}


def expired_token() -> str:
    """The token provider of the settings: found by this module's name."""
    return os.environ["EXPIRED_TOKEN"]


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_refusal_has_its_own_line_and_code(
    case: tuple[str, dict[str, str], ExitCode, str],
    secured: SecuredKafka,
    granted: Topics,
    tokens: TokenServer,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, on both sides, and never "no broker answers"."""
    listener, changes, code, line = case
    monkeypatch.setenv("EXPIRED_TOKEN", tokens.token(-3600))
    base = {
        "LOGIN": way(secured, "PLAIN", "consumer", tokens),
        "TOKEN": way(secured, "OAUTHBEARER", "consumer", tokens),
        "mutual": at(secured, "MUTUAL", "SSL") | {"KAFKA_CA_FILE": str(secured.files.ca)},
        "name": {
            "BOOTSTRAP_SERVERS": secured.at("OTHERNAME").replace("localhost", "127.0.0.1"),
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_CA_FILE": str(secured.files.ca),
        },
    }[listener]
    files = {name: str(getattr(secured.files, name)) for name in secured.files.__slots__}
    given = base | {name: value.format(**files) for name, value in changes.items()}
    environ = settings_of(granted, secret, given) | {"BROKER_WAIT_SECONDS": "60"}
    with pytest.raises(FatalError, match=line) as ours:
        async with open_cluster(ConsumerSettings.from_env(environ)):
            pass
    with pytest.raises(FatalError, match=line) as theirs:
        async with administration(ProducerSettings.from_env(environ)):
            pass
    assert ours.value.code == theirs.value.code == code
    assert "wrong" not in str(ours.value).replace("wrong client", "")


def test_token_is_renewed_while_running(
    secured: SecuredKafka, granted: Topics, tokens: TokenServer, secret: str, tmp_path: Path
) -> None:
    """The broker closes a connection when its token ends; the work goes on with the next one."""
    grant_ingestion_to_consumer(secured, granted)
    tokens.life_seconds, before = 4, tokens.issued
    try:
        settings = settings_of(granted, secret, way(secured, "OAUTHBEARER", "consumer", tokens))
        with consumer_process(settings, tmp_path / "log", SUBJECT) as running:
            running.wait_for("partition assigned")
            while tokens.issued < before + 6:  # two processes: two lives at least
                assert asyncio.run(publish_one(settings)) == "ok"
            assert asyncio.run(publish_one(settings)) == "ok"
            assert running.process.poll() is None
            assert running.end() == ExitCode.OK
    finally:
        tokens.life_seconds = 60


def rights_of(side: str, topics: Topics) -> list[list[str]]:
    """Return each right of the table alone, as arguments of Kafka's tool."""
    own = {
        "PATH": os.environ["PATH"],
        "INGEST_TOPIC": topics.ingest,
        "RESULTS_TOPIC": topics.results,
        "DLQ_TOPIC": topics.dlq,
        "GROUP_ID": f"group.{topics.ingest}",
    }
    script = str(ROOT / "deploy" / "kafka-acls.sh")
    printed = subprocess.run([script, "--print", side], env=own, capture_output=True, text=True)
    rights = []
    for line in printed.stdout.splitlines():
        kind, name, pattern, *operations = line.split()
        for operation in operations:
            what = [f"--{kind}", name, "--resource-pattern-type", pattern]
            rights.append([*what, "--operation", operation])
    return rights


def test_one_right_less_does_not_suffice(
    secured: SecuredKafka, granted: Topics, tokens: TokenServer, secret: str, tmp_path: Path
) -> None:
    """Each right of the consumer is needed; the line says which one is missing."""
    settings = settings_of(granted, secret, way(secured, "PLAIN", "consumer", tokens))
    theirs = settings_of(granted, secret, way(secured, "PLAIN", "ingestion", tokens))
    rights = [r for r in rights_of("consumer", granted) if "image.queries" not in r]
    chosen = rights if FULL else [r for r in rights if r[0] in ("--transactional-id", "--group")]
    tool = "org.apache.kafka.tools.AclCommand"
    # What a group has done is looked up in the results where it has no position.
    fresh = f"fresh.{granted.ingest}"
    grant(secured, granted, "consumer", fresh)
    for number, right in enumerate(chosen):
        is_evidence = right[1] == granted.results and right[-1] == "Read"
        ours = settings | ({"GROUP_ID": fresh} if is_evidence else {})
        principal = ["--allow-principal", "User:consumer", "--force"]
        secured.run_class(tool, "--remove", *principal, *right)
        log = tmp_path / f"{number}.log"
        with consumer_process(ours, log, SUBJECT) as running:
            verdict = asyncio.run(_verdict(running, theirs))
        secured.run_class(tool, "--add", *principal, *right)
        assert verdict != "ok", f"{right} is not needed"
        assert "Traceback" not in log.read_text(), f"{right}:\n{log.read_text()}"


async def test_status_with_the_rights_of_the_ingestion_side_and_with_less(
    secured: SecuredKafka, granted: Topics, tokens: TokenServer, secret: str, tmp_path: Path
) -> None:
    """They suffice; without the right to a group or a topic that part alone is not known."""
    ours = settings_of(granted, secret, way(secured, "PLAIN", "consumer", tokens))
    theirs = settings_of(granted, secret, way(secured, "PLAIN", "ingestion", tokens))
    with consumer_process(ours, tmp_path / "log", SUBJECT):
        await publish_one(theirs)
        whole = await read_status(StatusSettings.from_env(theirs), since=0)
    assert not whole.faults
    assert whole.last_result is not None

    tool, principal = "org.apache.kafka.tools.AclCommand", ["--allow-principal", "User:ingestion"]
    group, dlq = ["--group", theirs["GROUP_ID"]], ["--topic", granted.dlq]
    for what, part, code in (
        ([*group, "--operation", "Describe"], "group", ExitCode.ACCESS),
        ([*dlq, "--operation", "Read"], "dead_letters", ExitCode.TOPIC),
    ):
        await asyncio.to_thread(secured.run_class, tool, "--remove", "--force", *principal, *what)
        less = await read_status(StatusSettings.from_env(theirs), since=0)
        await asyncio.to_thread(secured.run_class, tool, "--add", "--force", *principal, *what)
        assert less.faults[part].code is code
        assert isinstance(less.last_result, LastResult)


async def test_reader_in_a_group_needs_the_right_to_it(
    secured: SecuredKafka, granted: Topics, tokens: TokenServer, secret: str, tmp_path: Path
) -> None:
    """The rights of the script's third side suffice; without the group's a line says so."""
    group = f"indexer.{granted.ingest}"
    ours = settings_of(granted, secret, way(secured, "PLAIN", "consumer", tokens))
    theirs = settings_of(granted, secret, way(secured, "PLAIN", "ingestion", tokens))
    settings = ProducerSettings.from_env(theirs)
    with consumer_process(ours, tmp_path / "log", SUBJECT):
        await publish_one(theirs)

    with pytest.raises(FatalError) as denied:
        async with ResultReader(settings, group_id=group) as reader:
            await anext(aiter(reader))
    assert denied.value.code is ExitCode.ACCESS
    assert group in str(denied.value)

    grant(secured, granted, "reader", READER_GROUP=group)
    async with asyncio.timeout(PATIENCE_SECONDS), ResultReader(settings, group_id=group) as reader:
        assert (await anext(aiter(reader))).result.status == "ok"
        await reader.commit()


async def _verdict(running: Running, theirs: Mapping[str, str]) -> str:
    """Return `ok` once a record has its result, else the exit code or the warning."""
    publishing = asyncio.ensure_future(publish_one(theirs))
    while not publishing.done():
        code = running.process.poll()
        if code is not None:
            publishing.cancel()
            return f"exit {code}"
        if any("DescribeConfigs" in str(line) for line in running.events()):
            publishing.cancel()
            return "warning"
        await asyncio.sleep(0.1)
    return await publishing
