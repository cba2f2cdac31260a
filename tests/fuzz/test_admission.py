"""Whatever is sent: a request, a refusal or a failure of the closed list, and nothing else.

Every input comes from one seed; a failure shows the input, and those that ever failed are below.
"""

import asyncio
import base64
import os
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, given
from hypothesis import seed as hypothesis_seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from consumer.errors import Failed
from consumer.image_sources import open_sources
from consumer.images.byte_budget import ByteBudget
from consumer.images.sources import Sources
from consumer.settings import ConsumerSettings
from imagelane.uris import display
from schemas import (
    Code,
    Record,
    Refused,
    Request,
    Result,
    Stage,
    decode_result,
    encode_request,
    encode_result,
)
from schemas.codec import decode_request
from tests import strategies
from tests.fakes import content_of
from tests.fuzz.conftest import Scale
from tests.fuzz.hostile import hostile_record, hostile_uri, json_object, mutated
from tests.unit.schemas.records import SECRET, admit, record

MAX_SECONDS = 2  # processor time of one input; a parser that is quadratic takes far longer
MAX_GROWTH_BYTES = 256 << 20
MAX_REASON_CHARS = 2000
MAX_MESSAGE_CHARS = 500
SECRET_KEY = "a-secret-key-that-nobody-may-see"
GOOD_URIS = ["file:///a/b.jpg", "https://host.example/a.jpg?x=y", "s3://pics/a.jpg", "data:,"]
Input = TypeVar("Input")


def _admitted(hostile: Record) -> str:
    """Return `ok` or the code of the refusal; anything else fails."""
    try:
        request = admit(hostile)
    except Refused as refused:
        return _well_said(refused)
    assert isinstance(request, Request)
    assert decode_request(encode_request(request)) == request
    return "ok"


def _read_back(value: bytes) -> str:
    """The same for a reader of results."""
    try:
        result = decode_result(value)
    except Refused as refused:
        return _well_said(refused)
    assert isinstance(result, Result)
    assert decode_result(encode_result(result)) == result
    if result.embedding:
        try:
            assert len(result.embedding.vector()) == result.embedding.dim
        except ValueError:
            return "no vector"
    return "ok"


def _well_said(refused: Refused) -> str:
    """Return the code of a refusal whose words can go into a header and a log line."""
    assert refused.code.stage is Stage.ADMIT
    assert len(refused.reason) < MAX_REASON_CHARS
    assert refused.reason.isprintable()
    assert SECRET.decode() not in refused.reason
    return refused.code


def _well_failed(failed: Failed) -> str:
    """The same of a failed fetch."""
    assert failed.code.stage in (Stage.FETCH, Stage.DECODE)
    assert len(failed.message) < MAX_MESSAGE_CHARS
    assert failed.message.isprintable()
    assert SECRET_KEY not in failed.message
    return failed.code


def _every(count: int, make: Callable[[], Input], judge: Callable[[Input], str]) -> Counter[str]:
    """Judge `count` inputs, each within its time, all within their memory; count the verdicts."""
    verdicts: Counter[str] = Counter()
    before = _peak_bytes()
    for _ in range(count):
        hostile = make()
        start = time.thread_time()
        try:
            verdicts[judge(hostile)] += 1
        except BaseException as fault:
            fault.add_note(f"input: {hostile!r}"[:20_000])
            raise
        assert time.thread_time() - start < MAX_SECONDS, repr(hostile)[:20_000]
    assert _peak_bytes() - before < MAX_GROWTH_BYTES
    _show(verdicts)
    return verdicts


def _show(verdicts: Counter[str]) -> None:
    shares = ", ".join(f"{code} {count}" for code, count in verdicts.most_common())
    print(f"{verdicts.total()} inputs: {shares}")  # noqa: T201 - what was reached


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_any_record_is_admitted_or_refused(scale: Scale) -> None:
    """Mostly signed, so that the parser is reached; value, headers, key and times are hostile."""
    random = scale.random("records")

    def make() -> Record:
        return hostile_record(random, hostile_uri(random, GOOD_URIS))

    verdicts = _every(scale.inputs(full=300_000, short=4_000), make, _admitted)
    # Each way out was taken, so that none of them is only believed to be safe.
    codes = {code for code in Code if code.stage is Stage.ADMIT}
    assert verdicts.keys() >= (codes if scale.full else {Code.INVALID}) | {"ok", Code.MALFORMED}


def test_any_accident_to_a_signed_record_is_refused(scale: Scale) -> None:
    """One bit or more of value or headers changed on the way: never admitted as another request."""
    random = scale.random("accidents")
    original = record()
    value = original.value or b""

    def make() -> Record:
        headers = [(name, mutated(random, data)) for name, data in original.headers]
        if random.random() < 0.5:
            return record(value=mutated(random, value), headers=original.headers)
        return record(
            headers=[random.choice(pair) for pair in zip(original.headers, headers, strict=True)]
        )

    def judge(hostile: Record) -> str:
        verdict = _admitted(hostile)
        unchanged = (hostile.value, list(hostile.headers)) == (value, list(original.headers))
        assert (verdict == "ok") == unchanged
        return verdict

    _every(scale.inputs(full=100_000, short=1_000), make, judge)


def test_any_result_is_read_or_refused(scale: Scale) -> None:
    """Readers of results are as safe: from signed garbage to a vector that is none."""
    random = scale.random("results")
    _every(scale.inputs(full=200_000, short=1_500), lambda: _result_value(random), _read_back)


def _result_value(random: Random) -> bytes:
    numbers = base64.b64encode(random.randbytes(random.choice((0, 3, 8, 8, 8, 9)))).decode()
    text = json_object(
        random,
        version="1",
        id='"01JABC"',
        status=random.choice(('"ok"', '"ok"', '"error"')),
        image='{"uri":"x","sha256":"%s","width":1,"height":1,"format":"PNG"}' % ("0" * 64),
        embedding=json_object(
            random,
            model='"m"',
            revision='"r"',
            dim=random.choice(("2", "2", "-1", "9" * 18)),
            encoding=random.choice(('"base64"', '"base64-be"', '"float"')),
            data=random.choice((f'"{numbers}"', "[0.5,1e300]", "[1,2]", '"%%%"')),
        ),
        timing_ms=json_object(random, total="1.5", queue="1e300"),
        source='{"topic":"t","partition":0,"offset":1}',
        metadata=json_object(random),
    )
    value = text.encode("utf-8", "surrogatepass")
    return mutated(random, value) if random.random() < 0.3 else value


def test_any_headers_and_values_of_hypothesis_are_admitted_or_refused(scale: Scale) -> None:
    """Where our own ideas end: whatever hypothesis makes of types and sizes, signed or not."""
    names = st.sampled_from(["sig-id", "sig-ts", "sig"]) | st.text(max_size=20)
    headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=200)), max_size=6)
    values = st.none() | strategies.near_requests() | st.binary(max_size=300)

    @hypothesis_seed(scale.seed)
    @hypothesis_settings(
        max_examples=scale.inputs(full=20_000, short=200),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(values=values, headers=st.none() | headers, key=strategies.bytes_or_null)
    def check(values: bytes | None, headers: list[tuple[str, bytes]] | None, key: bytes) -> None:
        _admitted(record(value=values, headers=headers, key=key))

    check()


@asynccontextmanager
async def _sources(folder: Path) -> AsyncIterator[tuple[Sources, list[str]]]:
    """Open all schemes that reach no network, and return references that are good there."""
    root = folder / "root"
    (root / "sub").mkdir(parents=True)
    (root / "inside.jpg").write_bytes(b"inside")
    (root / "sub" / "inside.jpg").write_bytes(b"inside")
    (folder / "secret").write_bytes(b"outside")
    (root / "link").symlink_to(folder)
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    settings = ConsumerSettings.from_env(
        {
            "SECRET_API_KEY": SECRET.decode(),
            "FILE_ROOTS": str(root),
            # Nobody listens there.
            "ALLOWED_HOSTS": "127.0.0.1:1",
            "ALLOWED_NETWORKS": "127.0.0.0/8",
            "S3_BUCKETS": "pics,other/open/",
            "S3_ENDPOINT": "http://127.0.0.1:1",
            "S3_ACCESS_KEY_ID": "an-access-key",
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
        }
    )
    good = [
        f"file://{root}/inside.jpg",
        f"file://{root}/sub/inside.jpg",
        f"file:{root}/link/secret",
    ]
    good += ["s3://pics/a.jpg", "s3://other/open/a.jpg?versionId=x", "data:image/png;base64,QUJD"]
    good += ["http://127.0.0.1:1/a.jpg?x=y", "https://127.0.0.1:1/a.jpg"]
    async with open_sources(settings) as sources:
        yield sources, good


async def test_any_reference_is_fetched_or_fails(scale: Scale, tmp_path: Path) -> None:
    """Whatever a signed sender names: bytes that may be had, or a code, in words with no secret."""
    random = scale.random("references")
    verdicts: Counter[str] = Counter()
    budget = ByteBudget(2**30)
    async with asyncio.timeout(280), _sources(tmp_path) as (sources, good):
        for _ in range(scale.inputs(full=200_000, short=2_500)):
            uri = hostile_uri(random, good)
            hostile = record(value=b'{"version":1,"id":"01JABC","image":{"uri":"x"}}')
            reference = admit(hostile).image.model_copy(update={"uri": uri})
            try:
                async with budget.reserve() as reservation:
                    content = content_of(await sources.fetch(reference, reservation))
                    if uri[:5].lower() != "data:":
                        assert content == b"inside"
                    verdicts["ok"] += 1
            except Failed as failed:
                verdicts[_well_failed(failed)] += 1
            except BaseException as fault:
                fault.add_note(f"reference: {uri!r}")
                raise
        assert budget.held_bytes == 0
    _show(verdicts)
    assert verdicts.keys() >= {"ok", Code.FORBIDDEN_SOURCE, Code.NOT_FOUND, Code.IMAGE_UNAVAILABLE}


def test_no_message_shows_the_password_of_a_reference(scale: Scale) -> None:
    """Wherever a parser, however lenient, would find user, password or query."""
    random = scale.random("passwords")

    def make() -> str:
        scheme = random.choice(["http", "https", "HTTPS", "s3", "ftp", "x-1"])
        slashes = random.choice(["//", "/", "", "///", "\\\\", "/\\", "////"])
        user = random.choice(
            ["user:hunter2@", "hunter2@", ":hunter2@", "a@hunter2@", "u:hu@hunter2@"]
        )
        place = "".join(random.choices(["host", ".", ":80", "[::1]", "%40", "~"], k=3))
        path = "/" + "".join(random.choices(["a", "/", "%2e", "@", ":", "é"], k=5))
        query = random.choice(["", "?X-Signature=hunter2", "#hunter2", "?a#hunter2", "#a?hunter2"])
        return scheme + ":" + slashes + user + place + path + query

    def judge(uri: str) -> str:
        assert "hunter2" not in display(uri)
        return "ok"

    _every(scale.inputs(full=100_000, short=3_000), make, judge)
