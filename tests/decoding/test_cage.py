"""The cage of the decoding processes: hostile code runs inside a real one and is refused."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from consumer import check
from consumer.errors import Failed
from consumer.images.decoding import image
from consumer.images.decoding.confinement import landlock_rights
from consumer.images.decoding.limits import DecodeLimits, Format
from consumer.images.decoding.pool import Decoder
from consumer.pixels import Resize
from schemas import Task
from tests import corpus, pictures
from tests.conftest import ROOT
from tests.fakes import decoded
from tests.hostile_worker import MARK, SITE, allow_code, run_inside
from tests.processes import child_workers, workers_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the cage is Linux's"),
    pytest.mark.filterwarnings(r"ignore:::PIL\..*"),
    pytest.mark.filterwarnings("ignore:.*getdata.*:DeprecationWarning"),  # pillow_heif, writing
]

LIMITS = DecodeLimits(max_pixels=4_000_000)
ALL_FORMATS = DecodeLimits(max_pixels=4_000_000, formats=tuple(Format))
TARGETS = {Task.EMBED: Resize(height=16, width=16, resample=3, crop=False)}

# What worked from inside a decoder before there was a filter. `victim` is a process of the same
# user, `path` a file that it may write; each line raises OSError where it is refused.
ATTACKS = {
    "limit the CPU of another": "resource.prlimit(victim, resource.RLIMIT_CPU, (100, 100))",
    "limit the files of another": "resource.prlimit(victim, resource.RLIMIT_NOFILE, (0, 0))",
    "make another slow": "os.setpriority(os.PRIO_PROCESS, victim, 19)",
    "bind another to one core": "os.sched_setaffinity(victim, {0})",
    "empty a file": "os.truncate(path, 0)",
    "change who may read a file": "os.chmod(path, 0o777)",
    "make a file look old": "os.utime(path, (0, 0))",
    "read a file": "open(path)",
    "open a socket": "socket.socket()",
    "keep memory after its end": "call('shmctl', call('shmget', 0, 1 << 20, 0o1600), 0, None)",
    "outlive the consumer": "call('prctl', 1, 0, 0, 0, 0)",
    "raise its own limit of CPU": "call('setrlimit', 0, bytes([255] * 16))",
    "ignore the signal of that limit": "signal.signal(signal.SIGXCPU, signal.SIG_IGN)",
    "block the signal of that limit": (
        "call('sigprocmask', 0, bytes(2) + bytes([128]) + bytes(125), None)"
    ),
    "signal another": "os.kill(victim, 0)",
    "read another's memory": "call('syscall', 310, victim, 0, 0, 0, 0, 0)",
    "trace another": "call('ptrace', 16, victim, 0, 0)",
    "start a process": "os.waitpid(os.fork() or os._exit(0), 0)",
    "start a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "map code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "make memory that others may map": "os.memfd_create('x')",
    "use io_uring": "call('syscall', 425, 0, 0)",
}


def _attempt(code: str, victim: int, path: Path) -> str:
    """Return code that says `done`, or by the name of which error it was refused."""
    return (
        f"victim, path = {victim}, {str(path)!r}\n"
        f"try: {code}\n"
        "except OSError as exc: said.append(errno.errorcode[exc.errno])\n"
        "else: said.append('done')\n"
    )


@pytest.fixture
def victim() -> Iterator[int]:
    """Run a process of our user that does nothing."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        yield process.pid
        process.kill()


@asynccontextmanager
async def _opened(limits: DecodeLimits = LIMITS, **changes: object) -> AsyncIterator[Decoder]:
    options: dict[str, Any] = {"timeout_seconds": 20, "workers": 1} | changes
    async with Decoder(limits, **options) as decoder:
        yield decoder


@pytest.mark.parametrize("formats", [LIMITS, ALL_FORMATS], ids=["default", "all formats"])
async def test_every_attack_from_inside_is_refused(
    formats: DecodeLimits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """And the process that tried them all decodes the next image."""
    allow_code(monkeypatch, tmp_path)
    path = tmp_path / "secret"
    path.write_text("of somebody else")
    async with _opened(formats) as decoder:
        before = child_workers()
        said = {
            name: await run_inside(decoder, _attempt(code, victim, path))
            for name, code in ATTACKS.items()
        }
        assert set(said.values()) <= {"EPERM"}, said
        assert (await decoded(decoder, pictures.encoded(pictures.drawing(), "PNG"), TARGETS)).width
        assert child_workers() == before
    assert path.read_text() == "of somebody else"


# Each attack in a process of its own: one must not change what the next one may.
_EACH_IN_A_FORK = """
import json
for name, code in json.load(sys.stdin).items():
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        said = []
        exec(code)
        print(json.dumps([name, *said]), flush=True)
        os._exit(0)
"""


def test_attacks_work_where_there_is_no_cage(tmp_path: Path, victim: int) -> None:
    """So the test above can fail; refused here is only what this machine forbids everybody."""
    path = tmp_path / "file"
    path.touch()
    attempts = {name: _attempt(code, victim, path) for name, code in ATTACKS.items()}
    output = subprocess.check_output(
        [sys.executable, "-c", SITE + _EACH_IN_A_FORK],
        cwd=ROOT,
        text=True,
        input=json.dumps(attempts),
        stderr=subprocess.DEVNULL,
    )
    said = {name: words for name, *words in map(json.loads, output.splitlines())}
    # Nonsense is passed to the raw calls: what counts is that the kernel looked at it.
    looked_at = [["done"], ["EFAULT"], ["EINVAL"], ["ENOSYS"]]
    assert said.keys() == ATTACKS.keys()
    assert [name for name in said if said[name] not in looked_at and name != "use io_uring"] == []


async def test_thread_is_started_only_where_a_format_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HEIC's library decodes in a thread; a process is never started."""
    allow_code(monkeypatch, tmp_path)
    code = """
    thread = threading.Thread(target=said.append, args=["ran"])
    try:
        thread.start()
        thread.join()
    except RuntimeError:
        said.append("refused")
    """
    async with _opened() as decoder:
        assert await run_inside(decoder, code) == "refused"
    async with _opened(ALL_FORMATS) as decoder:
        assert await run_inside(decoder, code) == "ran"


async def test_processes_share_no_memory_but_each_its_own_with_the_consumer() -> None:
    """A picture never sees another's pixels: no segment is mapped by two processes."""
    async with _opened(workers=3):
        ours = _segments(os.getpid())
        theirs = [_segments(pid) for pid in child_workers()]
    assert [len(segments) for segments in theirs] == [1, 1, 1]
    assert len(set().union(*theirs)) == 3
    assert set().union(*theirs) <= ours


def _segments(pid: int) -> set[str]:
    """Return the inodes of the segments that a process maps."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "/memfd:decoder" in line}


async def test_decoder_finds_its_own_image_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that took it over finds the channel, /dev/null, and the image that it came with."""
    allow_code(monkeypatch, tmp_path)
    look = """
    for number in range(64):
        try: said.append(os.pread(number, 1, 0).hex() or "null")
        except OSError as exc: said.append(errno.errorcode[exc.errno])
    """
    async with _opened() as decoder:
        for _ in range(2):
            said = (await run_inside(decoder, look)).split()
            assert said == ["ESPIPE", "null", "null", MARK[:1].hex(), *["EBADF"] * 60]


async def test_new_process_finds_nothing_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the image nor the pixels that the killed process had in its segment."""
    allow_code(monkeypatch, tmp_path)
    look = """
    import gc
    maps = [each for each in gc.get_objects() if type(each).__name__ == "Segment"]
    said.append(maps[0]._map[:].count(0) == len(maps[0]._map))
    """
    white = pictures.encoded(pictures.drawing(), "PNG")
    async with _opened() as decoder:
        await decoded(decoder, white, TARGETS)
        assert await run_inside(decoder, look) == "False"
        (pid,) = child_workers()
        os.kill(pid, 9)
        assert await run_inside(decoder, look) == "True"


async def test_process_is_replaced_after_so_many_images() -> None:
    """DECODE_IMAGES_PER_PROCESS bounds what one that was taken over can lie about."""
    data = pictures.encoded(pictures.drawing(), "PNG")
    pids: list[int] = []
    async with _opened(images_per_process=2) as decoder:
        for _ in range(5):
            pids.extend(workers_of(decoder))
            await decoded(decoder, data, TARGETS)
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


async def test_machine_without_seccomp_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At start, in the log, and in what `check` prints of the decoder."""
    allow_code(monkeypatch, tmp_path)
    with (tmp_path / "sitecustomize.py").open("a") as file:
        file.write("import platform\nplatform.machine = lambda: 'sparc'\n")
    async with _opened() as decoder:
        assert decoder.lacks == ("seccomp",)
        code = _attempt("os.close(3); open('/etc/passwd')", 1, tmp_path)  # 3 is the image
        assert await run_inside(decoder, code) == "EACCES"
    assert "lacks" in capsys.readouterr().out
    assert check.cage(decoder.lacks) == "; this machine has no seccomp to cage them"


async def test_cage_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the corpus, of every format in every mode and compression, and of cameras' files."""
    files = {sample.name: sample.data for sample in corpus.samples()} | dict(pictures.modes())
    files |= {f"seed {at}": data for at, data in enumerate(pictures.seeds())}
    del files[
        "TIFF, a tile of 1.6 GB"
    ]  # of the limit of memory, which the cage has and we have not
    files |= {f"extra {at}": data for at, data in enumerate(pictures.extras())}
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", None)  # put back, since `prepare` sets it
    image.prepare(ALL_FORMATS)
    async with _opened(ALL_FORMATS) as decoder:
        before = child_workers()
        different = {}
        for name, data in files.items():
            caged, free = await _caged(decoder, data), _free(data)
            if caged != free:
                different[name] = (caged, free)
        assert different == {}
        assert child_workers() == before


async def _caged(decoder: Decoder, data: bytes) -> object:
    try:
        return (await decoded(decoder, data, TARGETS)).pixels[Task.EMBED].tobytes()
    except Failed as failed:
        return failed.code, failed.message


def _free(data: bytes) -> object:
    try:
        return image.decode(data, TARGETS, ALL_FORMATS).pixels[Task.EMBED].tobytes()
    except Failed as failed:
        return failed.code, failed.message


# Imports within functions that decoding does not reach, each with the reason.
_UNREACHED = {
    "IPython.lib.pretty": "shows an image in a notebook",
    "PIL.ImageQt": "hands an image to Qt",
    "PIL.ImageShow": "shows an image on a screen",
    "PIL.ImageTk": "hands an image to Tk",
    "PIL.ImageWin": "shows an image on Windows",
    "colorsys": "parses the name of a colour",
    "gc": "writes a PDF",
    "defusedxml": "getxmp(), which is not called",
    "defusedxml.ElementTree": "getxmp(), which is not called",
    "tempfile": "saves an image, or runs a program on it",
    "subprocess": "runs a program on an image",
    "shutil": "looks for Ghostscript: EPS",
}


def test_all_that_pillow_imports_late_is_imported_before_the_cage_closes() -> None:
    """Searched in the source of every module of Pillow that a process has loaded."""
    code = (
        "import sys; from consumer.images.decoding import image, limits\n"
        "image.prepare(limits.DecodeLimits(formats=tuple(limits.Format)))\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code]
    loaded = set(subprocess.check_output(command, cwd=ROOT, text=True).split())
    late: dict[str, str] = {}
    for name in sorted(loaded):
        if name.partition(".")[0] in ("PIL", "pillow_heif", "rawpy"):
            late |= dict.fromkeys(_imports_within_functions(name), name)
    assert len(late) > 10  # it finds some
    missing = {
        name: where for name, where in late.items() if name not in loaded | _UNREACHED.keys()
    }
    assert missing == {}


def _imports_within_functions(module: str) -> Iterator[str]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return
    tree = ast.parse(Path(spec.origin).read_text())
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                yield from _imported(node, module, spec.submodule_search_locations is not None)


def _imported(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = module if is_package else module.rpartition(".")[0]
        base = node.module or ""
        if node.level:
            base = f"{package}.{base}".rstrip(".")
        for alias in node.names:
            full = f"{base}.{alias.name}"
            found = None
            with suppress(ImportError):
                found = importlib.util.find_spec(full)
            yield full if found else base


@pytest.mark.parametrize(
    ("version", "rights"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 3]),
        (5, [0xFFFF, 3]),
        (6, [0xFFFF, 3, 3]),
        (7, [0xFFFF, 3, 3]),
    ],
)
def test_landlock_takes_every_right_that_the_kernel_knows(version: int, rights: list[int]) -> None:
    """More than that the kernel refuses; less leaves truncate(2) to a decoder."""
    assert landlock_rights(version) == rights
