"""The decoder's processes: what a hostile image does to one of them costs that image alone."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from consumer.errors import Failed
from consumer.images.decoding.channel import WorkerOptions
from consumer.images.decoding.limits import DecodeLimits, Format
from consumer.images.decoding.pool import Decoder, within_quota
from consumer.images.decoding.process import OutOfTime, Worker
from consumer.images.sealed import SealedImage
from consumer.pixels import Resize
from imagelane.exits import ExitCode, FatalError
from schemas import Code, Task
from tests import corpus
from tests.conftest import ROOT
from tests.fakes import decoded
from tests.processes import (
    child_workers,
    environment_of,
    is_gone,
    is_ready,
    open_files,
    peak_bytes,
    replaced,
    state_of,
    user_ticks,
    workers_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# Scans without a bound, so that a small JPEG may take as long as a test needs.
LIMITS = DecodeLimits(max_pixels=4_000_000, max_scans=10**6)
TARGETS = {Task.EMBED: Resize(height=4, width=4, resample=3, crop=False)}


def _picture(width: int = 8, height: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


async def _until(holds: Callable[[], object]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a process tells no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def _opened(workers: int = 1, **changes: object) -> AsyncIterator[Decoder]:
    options: dict[str, Any] = {"timeout_seconds": 20, "workers": workers} | changes
    async with Decoder(LIMITS, **options) as decoder:
        yield decoder


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Keep a process from running, as a hang would."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_image_is_decoded_while_the_loop_goes_on() -> None:
    """The loop answers during a decode, also while 32 MiB wait to be sent."""
    async with _opened() as decoder:
        with _stopped(*child_workers()):
            small = asyncio.create_task(decoded(decoder, _picture(), TARGETS))
            await asyncio.sleep(0)
            assert not small.done()
        image = await small
        with _stopped(*child_workers()):
            large = asyncio.create_task(decoded(decoder, _picture() + bytes(2**25), TARGETS))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not large.done()
        assert (await large).width == 8
    assert (image.width, image.height, image.format) == (8, 9, "PNG")
    pixels = image.pixels[Task.EMBED]
    assert pixels.shape == (4, 4, 3)
    assert pixels.flags.writeable
    assert pixels.flags.owndata


async def test_verdict_of_the_image_comes_through() -> None:
    """What the decoder says of the image is what the caller gets; the process goes on."""
    async with _opened() as decoder:
        before = child_workers()
        with pytest.raises(Failed) as caught:
            await decoded(decoder, b"text", TARGETS)
        assert (await decoded(decoder, _picture(), TARGETS)).format == "PNG"
        assert child_workers() == before
    assert caught.value.code is Code.NOT_AN_IMAGE
    assert caught.value.attempts == 1


async def test_crash_that_does_not_come_again_costs_nothing() -> None:
    """The image in a process that dies of something else is decoded by the next one."""
    async with _opened() as decoder:
        (pid,) = child_workers()
        with _stopped(pid):
            decoding = asyncio.create_task(decoded(decoder, _picture(), TARGETS))
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGSEGV)
        assert (await decoding).width == 8
        assert pid not in workers_of(decoder)
        assert replaced(decoder) == 1


async def test_image_that_crashes_twice_costs_that_record_alone() -> None:
    """It is decoder_crashed, with the signal; others go on beside it, and after it."""
    async with _opened(workers=2) as decoder:
        bad = asyncio.create_task(decoded(decoder, corpus.endless_jpeg(), TARGETS))
        seen: set[int] = set()
        for _ in range(2):
            await _until(lambda: any(map(_is_busy, workers_of(decoder) - seen)))
            (pid,) = filter(_is_busy, workers_of(decoder) - seen)
            seen.add(pid)
            assert (await decoded(decoder, _picture(), TARGETS)).format == "PNG"
            os.kill(pid, signal.SIGSEGV)
        with pytest.raises(Failed) as caught:
            await bad
        images = await asyncio.gather(*(decoded(decoder, _picture(), TARGETS) for _ in range(4)))
        assert len(images) == 4
        assert replaced(decoder) == 2
    assert caught.value.code is Code.DECODER_CRASHED
    assert caught.value.attempts == 2
    assert "SIGSEGV" in caught.value.message


def _is_busy(pid: int) -> bool:
    """Say whether a ready process has been computing for a while."""
    return is_ready(pid) and user_ticks(pid) > 60  # the start takes some 20


async def test_hang_costs_that_record_alone() -> None:
    """Over the time limit the process is killed, whatever it does, and replaced at once.

    The time of a record that waited for it has not begun.
    """
    async with _opened(timeout_seconds=1.5) as decoder:
        (pid,) = child_workers()
        os.kill(pid, signal.SIGSTOP)
        hanging = asyncio.create_task(decoded(decoder, _picture(), TARGETS))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(decoded(decoder, _picture(), TARGETS))
        with pytest.raises(Failed) as caught:
            await hanging
        assert (await waiting).format == "PNG"
        assert replaced(decoder) == 1
        await _until(lambda: is_gone(pid))
    assert caught.value.code is Code.DECODER_CRASHED
    assert "1.5 seconds" in caught.value.message


async def test_overrun_of_the_clock_is_not_tried_again() -> None:
    """A picture that takes for ever takes one time limit, not two."""
    async with _opened(timeout_seconds=1) as decoder:
        with pytest.raises(Failed) as caught:
            await decoded(decoder, corpus.endless_jpeg(), TARGETS)
    assert caught.value.code is Code.DECODER_CRASHED
    assert caught.value.attempts == 1


async def test_overrun_of_cpu_ends_the_process_by_itself() -> None:
    """Without a parent that looks at the clock, too."""
    options = WorkerOptions(limits=LIMITS)
    worker = Worker(options, timeout_seconds=60)
    worker.start()
    try:
        with (
            SealedImage.of(corpus.endless_jpeg()) as image,
            pytest.raises(OutOfTime, match="1 seconds of CPU"),
        ):
            await worker.decode(image, TARGETS, 1)
    finally:
        await worker.close()


async def test_overrun_of_memory_costs_that_record_alone() -> None:
    """A tile of 1.6 gigabytes in a small TIFF: no memory, and the process goes on."""
    limits = DecodeLimits(max_pixels=4_000_000, formats=(Format.TIFF,))
    async with Decoder(limits, timeout_seconds=20, workers=1) as decoder:
        (pid,) = child_workers()
        with pytest.raises(Failed) as caught:
            await decoded(decoder, corpus.tiff_with_one_tile(40_000), TARGETS)
        assert child_workers() == {pid}
        assert peak_bytes(pid) < 2**28
    assert caught.value.code is Code.DECODER_CRASHED


async def test_bytes_that_do_not_fit_cost_that_record_alone() -> None:
    """An image larger than the memory of the process ends it; the next image has a new one."""
    async with _opened(memory_bytes=2**28) as decoder:
        with pytest.raises(Failed) as caught:
            await decoded(decoder, bytes(2**28), TARGETS)
        assert (await decoded(decoder, _picture(), TARGETS)).format == "PNG"
    assert caught.value.code is Code.DECODER_CRASHED


async def test_no_more_than_the_workers_decode_at_once() -> None:
    """The third waits until one of two processes is free."""
    async with _opened(workers=2) as decoder:
        first, second = child_workers()
        with _stopped(first), _stopped(second):
            tasks = [asyncio.create_task(decoded(decoder, _picture(), TARGETS)) for _ in range(3)]
            await asyncio.sleep(0)
            assert decoder.lanes["decoder"].waiting == 1
            assert not any(task.done() for task in tasks)
        assert [image.width for image in await asyncio.gather(*tasks)] == [8, 8, 8]


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 64),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("9900000 100000\n", 64),
        ("100000 50000\n", 2),
    ],
)
def test_quota_of_a_container_bounds_the_cores(cpu_max: str, cores: int) -> None:
    """What the kernel grants in a period, never more than there are and never none."""
    assert within_quota(64, cpu_max) == cores


async def test_cancelled_record_frees_its_place() -> None:
    """What nobody waits for any longer is not decoded to its end."""
    async with _opened() as decoder:
        (pid,) = child_workers()
        cancelled = asyncio.create_task(decoded(decoder, corpus.endless_jpeg(), TARGETS))
        await _until(lambda: _is_busy(pid))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await decoded(decoder, _picture(), TARGETS)).format == "PNG"
        await _until(lambda: is_gone(pid))


async def test_nothing_is_left_behind() -> None:
    """After crashes, hangs and the end: no process, no zombie, no descriptor."""
    async with _opened():
        pass  # what the loop opens once, is open
    before = open_files(os.getpid())
    async with _opened(workers=2, timeout_seconds=5) as decoder:
        for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT):
            for pid in workers_of(decoder):
                os.kill(pid, number)
            await asyncio.gather(*(decoded(decoder, _picture(), TARGETS) for _ in range(4)))
        await _until(lambda: child_workers() == workers_of(decoder))
        assert all(state_of(pid) != "Z" for pid in workers_of(decoder))
    assert not child_workers()
    assert open_files(os.getpid()) == before


async def test_image_is_closed_soon_where_no_other_comes() -> None:
    """The process that decoded it closes it last, and does not wait for the next one to do so."""
    async with _opened() as decoder:
        (pid,) = workers_of(decoder)
        await decoded(decoder, _picture(), TARGETS)
        await _until(lambda: not any("memfd:image" in each for each in open_files(pid)))


async def test_a_process_that_cannot_be_started_is_a_fatal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first or a later one: it is named, and what was started before it is closed."""
    async with _opened():
        pass  # what the loop opens once, is open
    before, start = open_files(os.getpid()), subprocess.Popen
    for possible in range(3):
        left = iter(range(possible))

        def start_while_possible(*args: Any, left: Iterator[int] = left, **named: Any) -> Any:
            if next(left, None) is None:
                raise OSError(11, "Resource temporarily unavailable")
            return start(*args, **named)

        monkeypatch.setattr(subprocess, "Popen", start_while_possible)
        with pytest.raises(FatalError, match="no process can be started: Resource") as caught:
            await _opened(workers=3).__aenter__()
        assert caught.value.code == ExitCode.DEVICE
        assert not child_workers()
        assert open_files(os.getpid()) == before


async def test_process_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the consumer's environment nothing at all is handed on."""
    monkeypatch.setenv("SECRET_API_KEY", "what only the consumer knows")
    async with _opened():
        (pid,) = child_workers()
        names = environment_of(pid)
    assert names == {"PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}


def test_process_imports_neither_torch_nor_kafka() -> None:
    """It starts in a fraction of a second and holds nothing but the decoder."""
    code = "import sys, consumer.images.decoding.worker; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    modules = subprocess.check_output(command, cwd=ROOT, text=True).split()
    heavy = {"torch", "transformers", "aiokafka", "aiohttp", "asyncio", "structlog", "dotenv"}
    assert heavy.isdisjoint(modules)
    assert "consumer.settings" not in modules


async def test_signals_for_the_consumer_do_not_reach_the_process() -> None:
    """Ctrl-C goes to the terminal's session; a stop of the service to all, while images finish."""
    async with _opened() as decoder:
        (pid,) = child_workers()
        assert os.getsid(pid) == pid
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert (await decoded(decoder, _picture(), TARGETS)).format == "PNG"
        assert child_workers() == {pid}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "decoding"])
async def test_killed_consumer_leaves_no_process(busy: bool) -> None:
    """It is killed with its parent, also in the middle of an image."""
    code = """if True:
        import asyncio, sys
        from consumer.images.decoding.limits import DecodeLimits
        from consumer.images.decoding.pool import Decoder
        from consumer.pixels import Resize
        from schemas import Task
        from tests import corpus
        from tests.fakes import decoded

        async def main(busy):
            to = {Task.EMBED: Resize(height=4, width=4, resample=3, crop=False)}
            limits = DecodeLimits(max_scans=10**6)
            async with Decoder(limits, timeout_seconds=60, workers=2) as decoder:
                print("ready", flush=True)
                if busy:
                    await decoded(decoder, corpus.endless_jpeg(), to)
                await asyncio.sleep(60)

        asyncio.run(main(sys.argv[1] == "True"))
    """
    command = [sys.executable, "-c", code, str(busy)]
    consumer = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert consumer.stdout is not None
    assert await consumer.stdout.readline() == b"ready\n"
    pids = child_workers(consumer.pid)
    assert len(pids) == 2
    if busy:
        await _until(lambda: any(map(_is_busy, pids)))
    consumer.kill()
    await consumer.wait()
    await _until(lambda: all(map(is_gone, pids)))


async def test_process_has_nothing_open_but_its_channel() -> None:
    """What libraries print of a stranger's file is not for our log, and nothing was inherited."""
    async with _opened():
        (pid,) = child_workers()
        channel, *others = open_files(pid)
    assert channel.startswith("socket:")
    assert others == ["/dev/null", "/dev/null"]


async def test_too_little_memory_is_said_at_start() -> None:
    """Not image by image: the largest that is allowed has to fit."""
    with pytest.raises(FatalError, match=r"DECODE_MEMORY_BYTES=\d+ .*MAX_IMAGE_PIXELS") as caught:
        async with Decoder(DecodeLimits(), timeout_seconds=5, memory_bytes=2**29):
            pass
    assert caught.value.code is ExitCode.SETTINGS
    assert not child_workers()


async def test_no_memory_at_all_is_said_at_start() -> None:
    """Nor does it try for ever."""
    with pytest.raises(FatalError, match="DECODE_MEMORY_BYTES"):
        async with Decoder(DecodeLimits(), timeout_seconds=5, memory_bytes=2**20):
            pass
    assert not child_workers()


@pytest.mark.parametrize(
    ("kind", "module"), [(Format.HEIC, "pillow_heif"), (Format.RAW, "rawpy")], ids=str
)
async def test_listed_format_without_its_library_is_said_at_start(
    kind: Format, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the library's name and where it comes from."""
    missing = f"raise ModuleNotFoundError('gone', name={module!r})"
    (tmp_path / f"{module}.py").write_text(missing)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FatalError, match=f"{module}.*extra `formats`") as caught:
        async with Decoder(DecodeLimits(formats=(kind,)), timeout_seconds=5, workers=1):
            pass
    assert caught.value.code is ExitCode.SETTINGS


LIES = {
    "a length of gigabytes": "send(b'\\xff\\xff\\xff\\xff'); stay()",
    "no JSON": "say(b'[' * 1000)",
    "a pickle": "say(b'\\x80\\x04N.')",
    "another stage's verdict": """say(b'{"code": "unsigned", "message": ""}')""",
    "a bell in a message": """say(b'{"code": "corrupt_image", "message": "\\\\u0007"}')""",
    "more fields": """say(b'{"width": 9, "height": 9, "format": "PNG", "extra": 1}')""",
    "a picture over the limits": """
say(b'{"width": 99999, "height": 99999, "format": "PNG"}')""",
    "a format that is not allowed": """
say(b'{"width": 9, "height": 9, "format": "TIFF"}')""",
    "half of an answer": """send(b'\\0\\0\\0\\x20{"width": 9,')""",
    "a wish for more of an image that it has": "send(b'\\x06' * 8); stay()",
    "nothing": "",
    "a death without a name": "import os; os.kill(os.getpid(), 40)",
}


def _stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let processes that start from now on run `code` in place of the decoder."""
    package = folder / "consumer" / "images" / "decoding"
    package.mkdir(parents=True)
    for parent in (package, *package.parents[:2]):
        (parent / "__init__.py").touch()
    (package / "worker.py").write_text(code)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_process_that_was_taken_over_is_not_believed(
    lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it answers, its image is decoder_crashed. A process that lies stands in for it."""
    code = (
        "import socket\n"
        "channel = socket.socket(fileno=0)\n"
        "send = channel.sendall\n"
        "say = lambda text: send(len(text).to_bytes(4, 'big') + text)\n"
        "stay = lambda: channel.recv(1)\n"
        "say(b'{}')\n"
        "channel.recv(10_000)\n"
        f"{lie}\n"
    )
    _stand_in(monkeypatch, tmp_path, code)
    async with _opened() as decoder:
        with pytest.raises(Failed) as caught:
            await decoded(decoder, _picture(), TARGETS)
    assert caught.value.code is Code.DECODER_CRASHED
    assert "crashed twice" in caught.value.message


async def test_process_that_cannot_be_replaced_ends_the_consumer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an endless attempt, and no fault of the image's: nothing is committed of it."""
    async with _opened() as decoder:
        _stand_in(monkeypatch, tmp_path, "raise SystemExit(3)")
        for pid in child_workers():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(FatalError, match="ended with 3 before it was ready") as caught:
            await decoded(decoder, _picture(), TARGETS)
    assert caught.value.code is ExitCode.DEVICE
    assert not child_workers()
