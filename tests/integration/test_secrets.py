"""No secret of ours gets out, and no credential of a sender gets further than the contract says.

The contract echoes `image.uri` in results, and a dead letter is the record as it came. So what a
sender wrote into a URI stands in those two places; it may stand nowhere else.
"""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from aiokafka import AIOKafkaProducer

from imagelane.exits import ExitCode
from schemas import KeyRing, Signer
from tests.conftest import ROOT, Broker, Topics
from tests.consumer_process import (
    PICTURES,
    consumer_process,
    environment,
    read_all,
    run_consumer,
)
from tests.s3_server import SECRET_ACCESS_KEY, S3Server, Script, answer, s3_server, scripted

pytestmark = pytest.mark.integration

PREVIOUS = "a-previous-secret-that-only-the-tests-know-0123456789"
HOST_TOKEN = "the-token-of-a-host-for-https-alone-0123456789"
PASSWORD = "hunter2-of-the-user"
TOKEN = "token-of-the-query"
PAYLOAD = base64.b64encode(b"hunter2-of-the-payload").decode()
PICTURE = (PICTURES / "large-red-circle.jpg").read_bytes()
# In one line of a program, since the set-up of logging is the process's.
LOGGED_FAULT = """
import logging
from consumer.runtime import logging_setup
logging_setup.configure("%s", "info")
def fail():
    secret = "a-local" + "-variable"
    raise ValueError("what went wrong")
try:
    fail()
except ValueError as fault:
    logging.getLogger("asyncio").error("said by a library", exc_info=fault)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A store with a picture and something that is none."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.client.create_bucket(Bucket="pics")
        server.client.put_object(Bucket="pics", Key="cat.jpg", Body=PICTURE)
        server.client.put_object(Bucket="pics", Key="text.jpg", Body=b"no picture")
        yield server


@asynccontextmanager
async def _web() -> AsyncIterator[dict[str, Script]]:
    """Hosts that have a picture, have none, are busy, send us on, or break off."""
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort"
    on = f"http://user:{PASSWORD}@127.0.0.1/a.jpg?{TOKEN}"
    async with AsyncExitStack() as hosts:
        replies = {
            "picture": answer("200 OK", PICTURE),
            "text": answer("200 OK", b"no picture"),
            "gone": answer("404 Not Found", TOKEN.encode()),
            "busy": answer("503 Service Unavailable", PASSWORD.encode()),
            "elsewhere": answer("302 Found", location=on),
            "broken": broken,
        }
        yield {
            name: await hosts.enter_async_context(scripted(reply))
            for name, reply in replies.items()
        }


def _uris(web: dict[str, Script]) -> dict[str, str]:
    """Return references of every kind with something secret in each, by message id."""
    query = f"?X-Amz-Signature={TOKEN}&password={PASSWORD}"
    at = {name: host.endpoint for name, host in web.items()}
    with_user = at["picture"].replace("//", f"//user:{PASSWORD}@")
    return {
        **{f"http-{name}": f"{endpoint}/cat.jpg{query}" for name, endpoint in at.items()},
        "http-fragment": f"{at['picture']}/cat.jpg#{TOKEN}",
        "http-user": f"{with_user}/cat.jpg{query}",
        "http-odd": f"http:\\\\user:{PASSWORD}@127.0.0.1/cat.jpg{query}",
        "http-tls": at["picture"].replace("http:", "https:") + f"/cat.jpg{query}",
        "http-closed": f"http://127.0.0.1:1/cat.jpg{query}",
        "http-host": f"http://user:{PASSWORD}@other.example/cat.jpg{query}",
        "s3-good": "s3://pics/cat.jpg",
        "s3-text": "s3://pics/text.jpg",
        "s3-gone": f"s3://pics/gone.jpg?versionId={TOKEN}",
        "s3-user": f"s3://AKIA:{PASSWORD}@pics/cat.jpg",
        "s3-query": f"s3://pics/cat.jpg{query}",
        "file-good": (PICTURES / "large-red-circle.jpg").as_uri(),
        "file-user": f"file://user:{PASSWORD}@localhost{PICTURES}/large-red-circle.jpg",
        "file-query": f"file://{PICTURES}/large-red-circle.jpg{query}",
        "data-broken": f"data:image/png;base64,{PAYLOAD}!",
        "data-text": f"data:image/png;base64,{PAYLOAD}",
        "data-form": f"data:text/plain;base64,{PAYLOAD}",
        "scheme": f"ftp://user:{PASSWORD}@host/cat.jpg{query}",
    }


def _values(uris: dict[str, str]) -> dict[str, bytes]:
    """Return request values by message id: one a reference, and some that are refused."""
    values = {
        name: json.dumps({"version": 1, "id": name, "image": {"uri": uri}, "tasks": ["embed"]})
        for name, uri in uris.items()
    }
    url = f"https://user:{PASSWORD}@host/?{TOKEN}"
    values["malformed"] = f'{{"version":1,"id":"malformed","image":{{"uri":"{url}"'
    values["invalid"] = json.dumps({"version": 1, "id": "invalid", "image": url})
    values["unknown"] = json.dumps({"version": 1, "id": "unknown", "image": {"url": url}})
    values["long"] = json.dumps({"version": 1, "id": "long", "image": {"uri": url + "x" * 9000}})
    values["large"] = json.dumps({"version": 1, "id": "large", "image": {"uri": url + "x" * 2**18}})
    values["version"] = json.dumps({"version": 2, "id": "version", "image": {"uri": url}})
    values["digest"] = json.dumps(
        {
            "version": 1,
            "id": "digest",
            "image": {"uri": uris["http-picture"], "sha256": "0" * 64},
            "tasks": ["embed"],
        }
    )
    return {name: value.encode() for name, value in values.items()}


async def _send(broker: Broker, topics: Topics, secret: str, values: dict[str, bytes]) -> int:
    """Publish values, each signed; then each kind of bad signature; return how many."""
    good = Signer(KeyRing(current_id="k1", secrets={"k1": secret.encode()}), topics.ingest)
    wrong = Signer(KeyRing(current_id="k1", secrets={"k1": b"x" * 32}), topics.ingest)
    unknown = Signer(KeyRing(current_id="k9", secrets={"k9": b"x" * 32}), topics.ingest)
    now = int(time.time())
    value = values["http-user"]
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:

        async def send(value: bytes, headers: list[tuple[str, bytes]]) -> None:
            await producer.send_and_wait(topics.ingest, key=b"k", value=value, headers=headers)

        for name, each in values.items():
            await send(each, good.sign(id=name, timestamp=now, key=b"k", value=each))
        for name, signer in {"wrong": wrong, "unknown-key": unknown}.items():
            await send(value, signer.sign(id=name, timestamp=now, key=b"k", value=value))
        await send(value, [])
        signed = good.sign(id="twice", timestamp=now, key=b"k", value=value)
        await send(value, [*signed, signed[0]])
        await send(value, good.sign(id="stale", timestamp=now - 3 * 86_400, key=b"k", value=value))
        await send(value, good.sign(id="mismatch", timestamp=now, key=b"k", value=value))
    return len(values) + 6


def _forms(secret: str) -> Iterable[bytes]:
    """Yield what a secret looks like in other clothes; base64 has one for each of 3 offsets."""
    raw = secret.encode()
    yield from (raw, raw.hex().encode(), raw.hex().upper().encode(), quote(secret, "").encode())
    yield raw[::-1]
    for offset in range(3):
        yield base64.b64encode(b"\0" * offset + raw)[4:-4]
        yield base64.urlsafe_b64encode(b"\0" * offset + raw)[4:-4]


def _assert_nowhere(secrets: Iterable[str], texts: dict[str, bytes]) -> None:
    for secret in secrets:
        for form in _forms(secret):
            found = [f"{place}: {text!r}"[:600] for place, text in texts.items() if form in text]
            assert not found, f"{form!r} is in {found}"


def _text(headers: Iterable[tuple[str, bytes]]) -> bytes:
    return b"\n".join(name.encode() + b"=" + value for name, value in headers)


def _without_uri(value: bytes) -> bytes:
    """Return a result without what the contract echoes."""
    members = json.loads(value)
    if "image" in members:
        del members["image"]["uri"]
    return json.dumps(members).encode()


def _talkative(hosts: Sequence[str]) -> dict[str, str]:
    """Return the settings of a consumer that knows every kind of secret and logs all it can."""
    return {
        "SECRET_API_KEYS_PREVIOUS": f"k0:{PREVIOUS}",
        "ALLOWED_HOSTS": ",".join(hosts),
        "HTTP_HEADERS": "\n".join(f"{host} Authorization: Bearer {HOST_TOKEN}" for host in hosts),
        "ALLOWED_NETWORKS": "127.0.0.0/8",
        "LOG_LEVEL": "debug",
        "RETRY_ATTEMPTS": "2",
        "FETCH_CONNECT_SECONDS": "0.5",
    }


async def test_secrets_stay_where_they_are(
    broker: Broker,
    topics: Topics,
    secret: str,
    store: S3Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every kind of record at the most talkative level: then all that came out is searched."""
    ours = (secret, PREVIOUS, SECRET_ACCESS_KEY, HOST_TOKEN)
    theirs = (PASSWORD, TOKEN, PAYLOAD)
    log = tmp_path / "log"
    async with _web() as web:
        values = _values(_uris(web))
        count = await _send(broker, topics, secret, values)
        hosts = [host.endpoint.removeprefix("http://") for host in web.values()]
        talkative = _talkative(hosts) | store.environment("pics")
        settings = environment(broker.bootstrap, topics, secret, **talkative)
        capfd.readouterr()
        with consumer_process(settings, log) as consumer:
            await asyncio.to_thread(consumer.wait_for, "record done", count)
            assert await asyncio.to_thread(consumer.end) == ExitCode.OK
        asked = b"".join(request for host in web.values() for request in host.requests)
    results = await read_all(broker.bootstrap, topics.results)
    letters = await read_all(broker.bootstrap, topics.dlq)
    sent = {r.offset: r for r in await read_all(broker.bootstrap, topics.ingest)}

    statuses = {dict(r.headers)["ce_id"].decode(): json.loads(r.value)["status"] for r in results}
    assert {name for name, status in statuses.items() if status == "ok"} == {
        *("http-picture", "http-fragment", "s3-good", "file-good"),
    }
    assert len(letters) == count - 4
    said = {"log": log.read_bytes(), "standard output": capfd.readouterr().out.encode()}
    everything = {**said, "what hosts were asked": asked}
    without_echo = dict(said)
    for result in results:
        place = f"result {dict(result.headers)['ce_id'].decode()}"
        everything[place] = b"\n".join((result.key, result.value, _text(result.headers)))
        without_echo[place] = b"\n".join(
            (result.key, _without_uri(result.value), _text(result.headers))
        )
    for letter in letters:
        place = f"dead letter at {letter.offset}"
        everything[place] = b"\n".join((letter.key, letter.value, _text(letter.headers)))
        original = sent[int(dict(letter.headers)["__dlq.errors.offset"])]
        assert (letter.key, letter.value) == (original.key, original.value)
        added = [header for header in letter.headers if header not in original.headers]
        without_echo[f"headers of {place}"] = _text(added)
    _assert_nowhere(ours, everything)
    _assert_nowhere(theirs, without_echo)


@pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)
async def test_wrong_secret_is_not_told(
    broker: Broker, topics: Topics, secret: str, tmp_path: Path
) -> None:
    """What is said of a wrong secret names the setting, and neither of the two secrets."""
    uri = (PICTURES / "large-red-circle.jpg").as_uri()
    names = [*(f"r{n}" for n in range(20)), "http-user", "http-picture"]
    await _send(broker, topics, secret, _values(dict.fromkeys(names, uri)))
    other = "another-secret-that-is-not-that-of-the-producer"
    settings = environment(broker.bootstrap, topics, other, LOG_LEVEL="debug")
    log = tmp_path / "log"
    with consumer_process(settings, log) as consumer:
        await asyncio.to_thread(consumer.wait_for, "not ready", cause="secret")
        assert await asyncio.to_thread(consumer.end) == ExitCode.OK
    checked = await asyncio.to_thread(run_consumer, settings, "check")
    said = log.read_bytes() + "".join((checked.stdout, checked.stderr)).encode()
    assert b"SECRET_API_KEY" in said
    _assert_nowhere((secret, other), {"what it said": said})


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_traceback_of_a_library_shows_no_variables(log_format: str) -> None:
    """What raised and where is said, in either format; what the frames held is not."""
    done = subprocess.run(
        [sys.executable, "-c", LOGGED_FAULT % log_format],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ValueError: what went wrong" in done.stderr
    assert "a-local-variable" not in done.stderr


@pytest.mark.parametrize("broker", ["embedded_broker"], indirect=True)
async def test_producer_shows_no_credentials(
    broker: Broker, topics: Topics, secret: str, tmp_path: Path
) -> None:
    """What people see of publishing names images without user and query, whatever goes wrong."""
    url = f"https://user:{PASSWORD}@host.example"
    manifest = tmp_path / "list.jsonl"
    lines = [f"{url}/cat.jpg?{TOKEN}", f"{url}/?{TOKEN}", "x" * 9000, f"https:user:{PASSWORD}@host"]
    lines += [json.dumps({"uri": f"{url}/a.jpg", "tasks": ["paint"]}), f'{{"uri":"{url}"']
    manifest.write_text("\n".join(lines))
    settings = {
        **environment(broker.bootstrap, topics, secret),
        "SECRET_API_KEYS_PREVIOUS": f"k0:{PREVIOUS}",
        "BROKER_TIMEOUT_SECONDS": "5",
    }
    said = {}
    for name, arguments in {
        "waiting": ("publish", str(manifest), "--wait", "--timeout", "1"),
        "too long": ("publish", f"{url}/?{TOKEN}" + "x" * 9000),
        "results": ("results",),
    }.items():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "producer", *arguments),
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said[name], _ = await process.communicate()
    assert b"cat.jpg" in said["waiting"]
    assert b"8192" in said["too long"]
    _assert_nowhere((secret, PREVIOUS, PASSWORD, TOKEN), said)
