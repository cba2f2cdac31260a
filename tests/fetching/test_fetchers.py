"""The fetching processes: bytes, verdicts and memory come through; one that dies costs a try."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from PIL import Image

from consumer.errors import Failed, Unavailable
from consumer.image_sources import open_sources
from consumer.images.byte_budget import ByteBudget, Reservation
from consumer.images.decoding.cost import estimated_seconds
from consumer.images.decoding.limits import DecodeLimits
from consumer.images.fetching import pool
from consumer.images.fetching.pool import Fetchers
from consumer.images.fetching.process import FetchProcess
from consumer.images.sources import Sources
from consumer.settings import ConsumerSettings
from imagelane.exits import ExitCode, FatalError
from schemas import Code, ImageReference
from tests import corpus
from tests import hostile_http as hostile
from tests.conftest import ROOT
from tests.fakes import SECRET, content_of
from tests.hostile_http import IMAGE, redirect, serving
from tests.processes import child_fetchers, command_of, environment_of, is_gone, open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

DATA = "data:image/png;base64,QUJD"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a small and a large file."""
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "large.jpg").write_bytes(bytes(3_000_000))
    return tmp_path


@asynccontextmanager
async def _opened(root: Path, **changes: str) -> AsyncIterator[Sources]:
    environment = {
        "SECRET_API_KEY": SECRET.decode(),
        "FILE_ROOTS": str(root),
        "FETCH_PROCESSES": "1",
        **changes,
    }
    async with open_sources(ConsumerSettings.from_env(environment)) as sources:
        await sources.ready()
        yield sources


def _http(port: int) -> dict[str, str]:
    return {"ALLOWED_HOSTS": f"127.0.0.1:{port}", "ALLOWED_NETWORKS": "127.0.0.0/8"}


async def _fetch(sources: Sources, uri: str, budget: ByteBudget | None = None) -> bytes:
    budget = budget or ByteBudget(2**30)
    async with asyncio.timeout(60), budget.reserve() as reservation:
        image = await sources.fetch(ImageReference(uri=uri), reservation)
        assert budget.held_bytes >= image.byte_length
        return content_of(image)


def _open(kind: str, pid: int | None = None) -> int:
    """Return how many descriptors of a kind a process has, this one by default."""
    return sum(kind in each for each in open_files(pid or os.getpid()))


async def test_images_of_each_scheme_come_through(root: Path) -> None:
    """And the consumer's own process keeps nothing of them open."""
    odd = b"HTTP/1.1 302 Found\r\nLocation: /caf\xe9\r\nContent-Length: 0\r\n\r\n"
    does = {"/moved": redirect("/there"), "/odd": hostile.raw(odd)}
    async with serving(does) as server:
        base = f"http://127.0.0.1:{server.port}"
        async with _opened(root, **_http(server.port)) as sources:
            assert await _fetch(sources, f"file://{root}/cat.jpg") == b"cat"
            assert await _fetch(sources, f"file://{root}/large.jpg") == bytes(3_000_000)
            assert await _fetch(sources, DATA) == b"ABC"
            assert await _fetch(sources, f"{base}/moved") == IMAGE
            assert await _fetch(sources, f"{base}/odd") == IMAGE
            assert server.paths == ["/moved", "/there", "/odd", "/caf%E9"]
            assert _open("memfd:image") == 0
            async with asyncio.timeout(20):  # the fetcher closes its own after we have ours
                while _open("memfd:image", *child_fetchers()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("uri", "code", "word"),
    [
        ("file:///etc/passwd", Code.FORBIDDEN_SOURCE, "FILE_ROOTS"),
        ("file://{root}/none.jpg", Code.NOT_FOUND, "no such file"),
        ("data:text/plain,x", Code.FORBIDDEN_SOURCE, "only data:image"),
        ("data:image/png;base64,!", Code.NOT_AN_IMAGE, "base64"),
        ("http://127.0.0.1:{port}/gone", Code.NOT_FOUND, "404"),
        ("http://127.0.0.1:{port}/busy", Code.IMAGE_UNAVAILABLE, "503"),
        ("http://127.0.0.1:{port}/round", Code.FORBIDDEN_SOURCE, "over 3 redirects"),
        ("http://127.0.0.1:9/a", Code.FORBIDDEN_SOURCE, "ALLOWED_HOSTS"),
        ("http://localhost:{port}/a", Code.FORBIDDEN_SOURCE, "address"),
    ],
)
async def test_verdicts_come_through(root: Path, uri: str, code: Code, word: str) -> None:
    """With code and message, and nothing is held."""
    does = {
        "/gone": hostile.raw(b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"),
        "/busy": hostile.raw(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"),
        "/round": redirect("/round"),
    }
    budget = ByteBudget(2**30)
    async with serving(does) as server:
        changes = {
            "ALLOWED_HOSTS": f"127.0.0.1:{server.port},localhost:{server.port}",
            "ALLOWED_NETWORKS": "" if "localhost" in uri else "127.0.0.0/8",
        }
        async with _opened(root, **changes) as sources:
            with pytest.raises(Failed, match=word) as caught:
                await _fetch(sources, uri.format(root=root, port=server.port), budget)
    assert caught.value.code is code
    assert isinstance(caught.value, Unavailable) == (word == "503")
    if isinstance(caught.value, Unavailable):
        assert caught.value.retry_after_seconds == 7
    assert budget.held_bytes == 0


async def test_host_that_redirects_to_a_long_way_off_costs_its_image_alone(root: Path) -> None:
    """A Location of the longest header that is read, in the characters that take most."""
    location = b"/" + b"\x7f\xe9" * 30_000
    answer = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    async with (
        serving({"/far": hostile.raw(answer)}) as server,
        _opened(root, **_http(server.port)) as sources,
    ):
        before = child_fetchers()
        with pytest.raises(Failed) as caught:
            await _fetch(sources, f"http://127.0.0.1:{server.port}/far")
        assert await _fetch(sources, DATA) == b"ABC"
        assert child_fetchers() == before
    assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert len(caught.value.message) < 500


async def test_fetches_wait_for_memory_and_go_on_when_there_is_some(root: Path) -> None:
    """The budget is that of the consumer's process; images larger than it get in alone."""
    budget = ByteBudget(2_000_000)
    async with _opened(root) as sources:
        async with budget.reserve(1_999_999):
            waiting = asyncio.create_task(_fetch(sources, f"file://{root}/cat.jpg", budget))
            large = asyncio.create_task(_fetch(sources, f"file://{root}/large.jpg", budget))
            while budget.waiting < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await waiting == b"cat"
        assert len(await large) == 3_000_000
    assert budget.held_bytes == 0


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that a fetching process asked for."""
    asked: list[int] = []
    want = FetchProcess._want

    def note(self: FetchProcess, number: int, byte_length: int) -> None:
        asked.append(byte_length)
        want(self, number, byte_length)

    monkeypatch.setattr(FetchProcess, "_want", note)
    return asked


async def test_small_images_are_fetched_before_they_are_reserved(
    root: Path, wanted: list[int]
) -> None:
    """Within the window, which each image leaves once it is reserved; then they ask as others."""
    (root / "small.jpg").write_bytes(bytes(10_000))
    small, budget = f"file://{root}/small.jpg", ByteBudget(2_000_000)
    async with _opened(root, BYTES_IN_FLIGHT=str(32 * 100_000)) as sources:
        for _ in range(30):
            assert len(await _fetch(sources, small, budget)) == 10_000
        assert wanted == []
        await _fetch(sources, f"file://{root}/large.jpg", budget)
        assert wanted == [3_000_000, 6_000_000]
        wanted.clear()
        async with budget.reserve(1_999_999):
            many = [asyncio.create_task(_fetch(sources, small, budget)) for _ in range(25)]
            while budget.waiting < 25:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert {len(content) for content in await asyncio.gather(*many)} == {10_000}
    # A quarter of the window at most is on its way back.
    assert 15 <= len(wanted) <= 18


async def test_fetches_that_fail_or_are_cancelled_leave_the_window(
    root: Path, wanted: list[int]
) -> None:
    """What they had taken of it is there for the next, whenever they end."""
    (root / "some.jpg").write_bytes(bytes(40_000))
    does = {"/short": hostile.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\nabc")}
    async with (
        serving({**does, "/b": hostile.trickle}) as server,
        _opened(root, BYTES_IN_FLIGHT=str(32 * 70_000), **_http(server.port)) as sources,
    ):
        base = f"http://127.0.0.1:{server.port}"
        for _ in range(3):
            with pytest.raises(Unavailable):
                await _fetch(sources, f"{base}/short")
            trickling = asyncio.create_task(_fetch(sources, f"{base}/b"))
            while server.paths[-1:] != ["/b"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            trickling.cancel()
            await asyncio.wait([trickling])
            assert await _fetch(sources, DATA) == b"ABC"  # the process has heard of it
            server.paths.clear()
            crossing = asyncio.create_task(_fetch(sources, f"file://{root}/some.jpg"))
            for _ in range(5):  # turns of the loop: the question is sent
                await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251 - the image arrives, and is not read before
            crossing.cancel()
            await asyncio.wait([crossing])
        full = ByteBudget(1)
        async with full.reserve(1):
            waiting = asyncio.create_task(_fetch(sources, f"file://{root}/cat.jpg", full))
            while not full.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert await _fetch(sources, DATA) == b"ABC"
    assert wanted == []


async def test_fetch_that_is_cancelled_leaves_nothing(root: Path) -> None:
    """Neither a connection at the host, nor memory, nor a descriptor."""
    budget = ByteBudget(2**30)
    async with (
        serving({"/a": hostile.silent, "/b": hostile.trickle}) as server,
        _opened(root, **_http(server.port)) as sources,
    ):
        (pid,) = child_fetchers()
        before = _open("socket:", pid)
        base = f"http://127.0.0.1:{server.port}"
        tasks = [asyncio.create_task(_fetch(sources, base + path, budget)) for path in ("/a", "/b")]
        while len(server.heads) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await _fetch(sources, DATA) == b"ABC"
        assert budget.held_bytes == 0
        async with asyncio.timeout(20):
            while _open("socket:", pid) > before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_process_that_dies_costs_each_of_its_images_a_try(root: Path) -> None:
    """What it had under way may heal; the next fetch has a new process."""
    async with (
        serving({"/a": hostile.silent}) as server,
        _opened(root, **_http(server.port)) as sources,
    ):
        (pid,) = child_fetchers()
        uri = f"http://127.0.0.1:{server.port}/a"
        hanging = [asyncio.create_task(_fetch(sources, uri)) for _ in range(3)]
        while len(server.heads) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        for task in hanging:
            with pytest.raises(Unavailable, match="process that fetched it ended"):
                await task
        assert await _fetch(sources, DATA) == b"ABC"
        assert child_fetchers().isdisjoint({pid})


async def test_process_that_says_nothing_is_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hang is no better than a death."""
    monkeypatch.setattr(pool, "_LOOK_SECONDS", 0.7)
    async with _opened(root) as sources:
        (pid,) = child_fetchers()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(Unavailable):
            await _fetch(sources, DATA)
        assert await _fetch(sources, DATA) == b"ABC"
        assert is_gone(pid)


async def test_each_process_has_its_share(root: Path) -> None:
    """The one that has the fewest fetches gets the next."""
    async with (
        serving({"/a": hostile.silent}) as server,
        _opened(root, FETCH_PROCESSES="3", **_http(server.port)) as sources,
    ):
        fetchers = sources.by_scheme["data"]
        assert isinstance(fetchers, Fetchers)
        uri = f"http://127.0.0.1:{server.port}/a"
        tasks = [asyncio.create_task(_fetch(sources, uri)) for _ in range(9)]
        while len(server.heads) < 9:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert [process.at_work for process in fetchers._processes] == [3, 3, 3]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"FILE_ROOTS": "/no/such/folder"}, "FILE_ROOTS: /no/such/folder"),
        ({"ALLOWED_HOSTS": "a.test", "HTTP_CA_FILE": "/none.pem"}, "HTTP_CA_FILE: /none.pem"),
        ({"ALLOWED_HOSTS": "a.test", "HTTP_HEADERS": "b.test X-A: 1"}, "HTTP_HEADERS"),
        ({"S3_BUCKETS": "pics//x"}, "S3_BUCKETS: pics//x"),
    ],
)
async def test_setting_that_cannot_be_met_stops_the_start(
    root: Path, changes: dict[str, str], words: str
) -> None:
    """With the words and the exit code that it had within the process."""
    with pytest.raises(FatalError, match=words) as caught:
        async with _opened(root, **changes):
            pass
    assert caught.value.code is ExitCode.SETTINGS


async def test_relative_path_of_a_setting_is_that_of_the_consumer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_CA_FILE, and what AWS_* names, may be beside the `.env`."""
    monkeypatch.chdir(root)
    trustme.CA().cert_pem.write_to_path("ca.pem")
    async with _opened(root, ALLOWED_HOSTS="a.test", HTTP_CA_FILE="ca.pem") as sources:
        assert await _fetch(sources, DATA) == b"ABC"


async def test_process_that_ends_before_it_is_ready_stops_the_start(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not started again and again."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(FatalError, match="before it was ready") as caught:
        async with _opened(root):
            pass
    assert caught.value.code is ExitCode.DEVICE


async def test_process_sees_no_secret_that_is_not_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in its environment nor in its command line; what botocore reads is there."""
    monkeypatch.setenv("SECRET_API_KEY", SECRET.decode())
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY_FILE", "/run/secrets/s3")
    monkeypatch.setenv("AWS_PROFILE", "imagelane")
    async with _opened(root, ALLOWED_HOSTS="a.test", HTTP_HEADERS="a.test X-Token: hush"):
        (pid,) = child_fetchers()
        seen = environment_of(pid)
        command = command_of(pid)
    assert seen.isdisjoint({"SECRET_API_KEY", "S3_SECRET_ACCESS_KEY_FILE", "HTTP_HEADERS"})
    assert "AWS_PROFILE" in seen
    assert "hush" not in command


async def test_bug_that_an_image_finds_costs_that_image_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result says what broke and where; the process goes on."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "try:\n    from consumer.images.sources.file import FileSource\n"
        "except ImportError:\n    pass\n"
        "else:\n    FileSource._locate = None\n"
    )
    monkeypatch.syspath_prepend(folder)
    async with _opened(root) as sources:
        before = child_fetchers()
        with pytest.raises(Failed, match=r"TypeError at file.py:\d+") as caught:
            await _fetch(sources, f"file://{root}/cat.jpg")
        assert await _fetch(sources, DATA) == b"ABC"
        assert child_fetchers() == before
    assert caught.value.code is Code.IMAGE_UNAVAILABLE


async def test_killed_consumer_leaves_no_process(root: Path) -> None:
    """A fetching process ends with the one that started it."""
    code = """if True:
        import asyncio, os
        from consumer.image_sources import open_sources
        from consumer.settings import ConsumerSettings

        async def main():
            async with open_sources(ConsumerSettings.from_env(os.environ)) as sources:
                await sources.ready()
                print("ready", flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    environment: dict[str, Any] = {
        **{name: os.environ[name] for name in ("PATH",)},
        "SECRET_API_KEY": SECRET.decode(),
        "FILE_ROOTS": str(root),
    }
    consumer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    assert consumer.stdout is not None
    assert await consumer.stdout.readline() == b"ready\n"
    (pid,) = child_fetchers(consumer.pid)
    consumer.kill()
    await consumer.wait()
    async with asyncio.timeout(20):
        while not is_gone(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class RecordingBudget(ByteBudget):
    """Notes the most bytes that it held."""

    most_bytes = 0

    def _add(self, reservation: Reservation, more_bytes: int) -> None:
        super()._add(reservation, more_bytes)
        self.most_bytes = max(self.most_bytes, self.held_bytes)


async def test_large_image_is_counted_twice_while_it_is_copied(root: Path) -> None:
    """As fetched and as sealed; afterwards once."""
    budget = RecordingBudget(2**30)
    async with _opened(root) as sources, budget.reserve() as reservation:
        reference = ImageReference(uri=f"file://{root}/large.jpg")
        with await sources.fetch(reference, reservation):
            assert (budget.most_bytes, budget.held_bytes) == (6_000_000, 3_000_000)


async def test_images_that_fit_a_budget_once_come_through(root: Path) -> None:
    """One after the other, however many wait for room for their second copy."""
    budget = ByteBudget(5_000_000)
    async with _opened(root) as sources:
        uris = [f"file://{root}/{name}" for name in ("large.jpg", "cat.jpg")] * 20
        contents = await asyncio.gather(*(_fetch(sources, uri, budget) for uri in uris))
    assert contents == [bytes(3_000_000), b"cat"] * 20
    assert budget.held_bytes == 0


async def test_header_says_what_decoding_will_take(root: Path) -> None:
    """So a slow picture waits in its lane, though the consumer never sees its bytes."""
    slow = corpus.encoded(Image.new("RGB", (4000, 3000)), "PNG")
    (root / "slow.png").write_bytes(slow)
    async with _opened(root) as sources, ByteBudget(2**30).reserve() as reservation:
        reference = ImageReference(uri=f"file://{root}/slow.png")
        with await sources.fetch(reference, reservation) as image:
            assert image.decode_seconds == estimated_seconds(slow, DecodeLimits()) > 0.25
