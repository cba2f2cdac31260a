"""`file:` references on a real file system: what is below the roots, and every way around them."""

import asyncio
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import ByteBudget, Reservation
from consumer.images.sources.file import FileSource
from imagelane.exits import ExitCode, FatalError
from imagelane.files import Root
from schemas import Code
from tests.effort import effort
from tests.fakes import fetched, fetching

LIMIT = 100
SMALL = 512 << 10  # read in one go
LARGE = SMALL + 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a picture in it, and a secret beside it."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "cat.jpg").write_bytes(b"cat")
    (folder / "sub" / "dog é %.jpg").write_bytes(b"dog")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "secret").write_bytes(b"secret")
    return folder


def _replace_by_link(folder: Path, target: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(target)


def _content(path: str) -> bytes:
    return Path(path).read_bytes()


def _open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def _any_root(path: str) -> FileSource:
    """Return a source of a folder that no setting may name."""
    directory = Path(path)
    return FileSource(roots=(Root(names=(directory.parts[1:],), directory=directory),))


async def _fetch(root: Path | str, uri: str) -> bytes:
    return await fetched(FileSource.under([str(root)]), uri, LIMIT)


async def _code(root: Path | str, uri: str) -> Code:
    with pytest.raises(Failed) as caught:
        await _fetch(root, uri)
    return caught.value.code


@pytest.mark.parametrize(
    "form",
    [
        "file://{}/cat.jpg",
        "file://localhost{}/cat.jpg",
        "FILE://LocalHost{}/cat.jpg",
        "file:{}/cat.jpg",
        "file://{}/./cat.jpg",
        "file://{}//cat.jpg",
        "file://{}/%63at%2ejpg",
        "file://{}%2Fcat.jpg",
    ],
)
async def test_file_below_a_root_is_read(root: Path, form: str) -> None:
    """All usual spellings of the same path name the same file."""
    assert await _fetch(root, form.format(root)) == b"cat"


async def test_names_are_percent_decoded_once(root: Path) -> None:
    """Any name can be written, and a percent sign that was encoded stays one."""
    assert await _fetch(root, f"file://{root}/sub/dog%20%C3%A9%20%25.jpg") == b"dog"
    assert await _fetch(root, f"file://{root}/sub/dog é %25.jpg") == b"dog"
    for encoded_twice in ("cat%252ejpg", "%252e%252e/secret", "sub%252fdog", "%25%32%65%252e/x"):
        assert await _code(root, f"file://{root}/{encoded_twice}") is Code.NOT_FOUND


async def test_root_with_a_trailing_slash_is_the_same(root: Path) -> None:
    """How the setting is written does not matter."""
    assert await _fetch(f"{root}//", f"file://{root}/cat.jpg") == b"cat"


async def test_root_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    """The root's own name is resolved once; both names of it work, and the rest stays closed."""
    (tmp_path / "link").symlink_to(root)
    link = tmp_path / "link"
    assert await _fetch(link, f"file://{link}/cat.jpg") == b"cat"
    assert await _fetch(link, f"file://{root}/cat.jpg") == b"cat"
    assert await _code(link, f"file://{link}/../secret") is Code.FORBIDDEN_SOURCE


async def test_second_root_is_open_too(root: Path, tmp_path: Path) -> None:
    """A file has to be below one of the roots, whichever."""
    source = FileSource.under([str(root), str(tmp_path / "root2")])
    assert await fetched(source, f"file://{tmp_path}/root2/secret", LIMIT) == b"secret"


async def test_without_roots_every_file_is_forbidden(root: Path) -> None:
    """file: is off by default."""
    with pytest.raises(Failed) as caught:
        await fetched(FileSource.under([]), f"file://{root}/cat.jpg", LIMIT)
    assert caught.value.code is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize(
    "form",
    [
        "file://{0}/../secret",
        "file://{0}/%2e%2e/secret",
        "file://{0}/.%2E/secret",
        "file://{0}%2f..%2fsecret",
        "file://{0}/%2e./secret",
        "file://{0}/sub/..%2f..%2fsecret",
        "file://{0}/sub%2f..%2F..%2fsecret",
        "file://{0}//..//secret",
        "file://{0}/./../secret",
        "file://{0}/sub/%2e%2e/%2e%2e/secret",
        "file:{0}/../secret",
        "file:////..{0}/cat.jpg",
        "file://localhost/../etc/passwd",
        "file:///proc/self/environ",
        "file:///dev/stdin",
        "file://%6cocalhost{0}/cat.jpg",
        "file://localhost:80{0}/cat.jpg",
        "file://[::1]{0}/cat.jpg",
        "file:\\t{0}/cat.jpg",
        "file: {0}/cat.jpg",
        "file://{0}/cat.jpg%00",
        "file://{0}/%u002e%u002e/secret",
        "file://{0}/%",
        "file://{0}/sub/../cat.jpg",
        "file://{0}2/secret",
        "file://{0}",
        "file://{0}/",
        "file://{0}/sub",
        "file:///etc/passwd",
        "file://evil{0}/cat.jpg",
        "file://127.0.0.1{0}/cat.jpg",
        "file://user@localhost{0}/cat.jpg",
        "file://{0}/cat.jpg?x",
        "file://{0}/cat.jpg#x",
        "file://{0}/cat.jpg%00.png",
        "file://{0}/cat.jpg\x00.png",
        "file://{0}/cat%zz",
        "file://{0}/cat%",
        "file://{0}/\ud800",
        "file:cat.jpg",
        "file:",
        "file://",
        "file:\\\\{0}\\cat.jpg",
    ],
)
async def test_way_out_of_the_root_is_forbidden(root: Path, form: str) -> None:
    """Dots, encodings, hosts, NUL, neighbours with the same beginning: none leads anywhere."""
    assert await _code(root, form.format(root)) is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize("target", ["../secret", "cat.jpg", "/etc/passwd", "missing"])
async def test_link_to_a_file_is_not_followed(root: Path, target: str) -> None:
    """Not even one that stays inside: whoever can write a link must not choose what is read."""
    (root / "link.jpg").symlink_to(target)
    assert await _code(root, f"file://{root}/link.jpg") is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize("target", ["..", "sub", "/", "missing"])
async def test_link_to_a_directory_is_not_followed(root: Path, target: str) -> None:
    """The same for each directory on the way."""
    (root / "link").symlink_to(target)
    assert await _code(root, f"file://{root}/link/secret") is Code.FORBIDDEN_SOURCE


async def test_root_replaced_by_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    """The directory that was resolved at start must still be one."""
    source = FileSource.under([str(root)])
    _replace_by_link(root, tmp_path / "root2")
    with pytest.raises(Failed):
        await fetched(source, f"file://{root}/secret", LIMIT)


def _swap(root: Path, done: threading.Event) -> None:
    while not done.is_set():
        (root / "swap").rename(root / "away")
        (root / "evil").rename(root / "swap")
        (root / "swap").rename(root / "evil")
        (root / "away").rename(root / "swap")


async def _race(root: Path, uri: str) -> set[bytes | Code]:
    """Fetch many times while a thread swaps `swap` and `evil`; return what was seen."""
    done = threading.Event()
    swapper = threading.Thread(target=_swap, args=(root, done))
    swapper.start()
    source = FileSource.under([str(root)])
    seen: set[bytes | Code] = set()
    try:
        for _ in range(effort(3000)):
            try:
                seen.add(await fetched(source, uri, LIMIT))
            except Failed as verdict:
                seen.add(verdict.code)
    finally:
        done.set()
        swapper.join()
    return seen


async def test_directory_swapped_for_a_link_meanwhile_never_leads_out(
    root: Path, tmp_path: Path
) -> None:
    """While a directory becomes a link to the outside and back, only the inside is ever read."""
    (root / "swap").mkdir()
    (root / "swap" / "secret").write_bytes(b"inside")
    (root / "evil").symlink_to(tmp_path / "root2")
    seen = await _race(root, f"file://{root}/swap/secret")
    assert b"inside" in seen
    assert seen <= {b"inside", Code.FORBIDDEN_SOURCE, Code.NOT_FOUND}


@pytest.mark.parametrize("evil", ["link", "fifo"])
async def test_file_swapped_for_something_else_meanwhile_is_never_read(
    root: Path, tmp_path: Path, evil: str
) -> None:
    """The same for a file that becomes a link to the outside, or a FIFO that nobody writes to."""
    (root / "swap").write_bytes(b"inside")
    if evil == "link":
        (root / "evil").symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(root / "evil")
    seen = await _race(root, f"file://{root}/swap")
    assert b"inside" in seen
    assert seen <= {b"inside", Code.FORBIDDEN_SOURCE, Code.NOT_FOUND}


async def test_fifo_is_forbidden_and_not_waited_for(root: Path) -> None:
    """Opening it must not wait for a writer who never comes."""
    os.mkfifo(root / "fifo.jpg")
    assert await _code(root, f"file://{root}/fifo.jpg") is Code.FORBIDDEN_SOURCE


async def test_socket_is_forbidden(root: Path) -> None:
    """Nothing is connected to."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "s.jpg"))
        assert await _code(root, f"file://{root}/s.jpg") is Code.FORBIDDEN_SOURCE


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("way", ["root/etc/passwd", "cwd/pyproject.toml", "fd/0", "exe", "ns/mnt"])
async def test_magic_link_of_proc_is_forbidden(way: str) -> None:
    """Even below a root in /proc, which no setting may name, no link of the kernel is followed."""
    for process in (str(os.getpid()), "self", "thread-self"):
        with pytest.raises(Failed) as caught:
            await fetched(_any_root("/proc"), f"file:///proc/{process}/{way}", LIMIT)
        assert caught.value.code is Code.FORBIDDEN_SOURCE


async def test_device_is_forbidden() -> None:
    """A character device inside a root is no image."""
    assert await _code("/dev", "file:///dev/null") is Code.FORBIDDEN_SOURCE
    assert await _code("/dev", "file:///dev/zero") is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize("name", ["missing.jpg", "missing/cat.jpg", "cat.jpg/x", "a" * 300])
async def test_name_of_nothing_is_not_found(root: Path, name: str) -> None:
    """A missing file, a missing directory, a file used as one, a name no file can have."""
    assert await _code(root, f"file://{root}/{name}") is Code.NOT_FOUND


async def test_limit_holds_to_the_byte(root: Path) -> None:
    """As many bytes as allowed are read, one more is too large."""
    (root / "full.jpg").write_bytes(b"x" * LIMIT)
    (root / "over.jpg").write_bytes(b"x" * (LIMIT + 1))
    assert len(await _fetch(root, f"file://{root}/full.jpg")) == LIMIT
    assert await _code(root, f"file://{root}/over.jpg") is Code.IMAGE_TOO_LARGE


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs Linux's /proc")
async def test_limit_holds_for_a_file_larger_than_it_says() -> None:
    """/proc/version says it has 0 bytes, as a file that grows says too few."""
    source = _any_root("/proc")
    content = _content("/proc/version")
    assert await fetched(source, "file:///proc/version", len(content)) == content
    with pytest.raises(Failed) as caught:
        await fetched(source, "file:///proc/version", len(content) - 1)
    assert caught.value.code is Code.IMAGE_TOO_LARGE


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
async def test_read_error_may_be_tried_again() -> None:
    """Address 0 of our own memory is a regular file that answers EIO."""
    source = _any_root(f"/proc/{os.getpid()}")
    with pytest.raises(Unavailable) as caught:
        await fetched(source, f"file:///proc/{os.getpid()}/mem", LIMIT)
    assert caught.value.code is Code.IMAGE_UNAVAILABLE
    assert os.strerror(errno.EIO) in caught.value.message


async def test_no_descriptor_is_left_open(root: Path) -> None:
    """Whatever the verdict, all descriptors are closed."""
    (root / "link").symlink_to("sub")
    before = _open_descriptors()
    for name in (
        "cat.jpg",
        "sub/dog%20é%20%25.jpg",
        "sub",
        "missing",
        "missing/x",
        "link/x",
        "cat.jpg/x",
    ):
        try:
            await _fetch(root, f"file://{root}/{name}")
        except Failed:
            continue
    assert _open_descriptors() == before


class _FullBudget(ByteBudget):
    """Lets one in at a time, nobody while it is full, and knows who asked."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: asyncio.Queue[int] = asyncio.Queue()

    async def resize(self, reservation: Reservation, byte_length: int) -> None:
        if byte_length:
            self.asked.put_nowait(byte_length)
        await super().resize(reservation, byte_length)

    async def wait_for(self, count: int) -> None:
        for _ in range(count):
            await self.asked.get()


async def test_file_that_waits_for_memory_has_no_descriptor(root: Path) -> None:
    """Thousands may wait, and a process may have no more than a thousand descriptors."""
    source, budget = FileSource.under([str(root)]), _FullBudget()
    (root / "large.jpg").write_bytes(bytes(LARGE))

    async def fetch() -> int:
        async with fetching(source, f"file://{root}/large.jpg", LARGE, budget) as data:
            return len(data)

    before = _open_descriptors()
    async with asyncio.TaskGroup() as tasks, budget.reserve(1):
        pending = [tasks.create_task(fetch()) for _ in range(50)]
        await budget.wait_for(1 + 50)
        assert _open_descriptors() == before
    assert [task.result() for task in pending] == [LARGE] * 50


async def test_small_files_that_wait_for_memory_are_as_many_as_a_root_has_places(
    root: Path,
) -> None:
    """They are read before they are counted, so the others are not read."""
    source, budget = FileSource.under([str(root)]), _FullBudget()

    async def fetch() -> bytes:
        async with fetching(source, f"file://{root}/cat.jpg", LIMIT, budget) as data:
            return data

    async with asyncio.TaskGroup() as tasks, budget.reserve(1):
        pending = [tasks.create_task(fetch()) for _ in range(50)]
        await budget.wait_for(1 + 16)
        await asyncio.sleep(0.05)
        assert budget.waiting == 16
    assert [task.result() for task in pending] == [b"cat"] * 50


async def test_large_files_that_hold_memory_get_a_thread_before_small_ones_that_want_some(
    root: Path,
) -> None:
    """Or neither would go on: the large ones wait for a place, the small ones for the large."""
    source, budget = FileSource.under([str(root)]), ByteBudget(20 * LARGE)
    (root / "large.jpg").write_bytes(bytes(LARGE))
    (root / "small.jpg").write_bytes(bytes(SMALL))

    async def fetch(name: str, byte_length: int) -> int:
        async with fetching(source, f"file://{root}/{name}", byte_length, budget) as data:
            return len(data)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        pending = [
            tasks.create_task(fetch(name, byte_length))
            for _ in range(40)
            for name, byte_length in (("large.jpg", LARGE), ("small.jpg", SMALL))
        ]
    assert [task.result() for task in pending] == [LARGE, SMALL] * 40


@pytest.mark.parametrize("byte_length", [1, 9, 10, SMALL, LARGE])
async def test_small_and_large_files_hold_what_they_have(root: Path, byte_length: int) -> None:
    """A file of whatever length is whole, and counted to the byte."""
    source, budget = FileSource.under([str(root)]), ByteBudget(2**30)
    data = os.urandom(byte_length)
    (root / "some.jpg").write_bytes(data)
    async with budget.reserve(kept_bytes=7) as reservation:
        assert await source.fetch(f"file://{root}/some.jpg", LARGE, reservation) == data
        assert budget.held_bytes == byte_length + 7
    assert budget.held_bytes == 0


async def test_file_that_hangs_holds_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not at that root goes on, however many hang there."""
    source, budget = FileSource.under([str(root)]), ByteBudget(4 * LIMIT)
    inside, may_go, held = threading.Semaphore(0), threading.Event(), []

    def hang(*_: object) -> int:
        inside.release()
        may_go.wait(30)
        return os.open(root / "cat.jpg", os.O_RDONLY)

    monkeypatch.setattr(Root, "open", hang)

    async def fetch() -> None:
        async with fetching(source, f"file://{root}/cat.jpg", LIMIT, budget):
            pass

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(fetch())
        for _ in range(5):
            await asyncio.to_thread(inside.acquire)
        held.append(budget.held_bytes)
        may_go.set()
    assert held == [0]
    assert budget.held_bytes == 0


async def test_file_that_changes_while_it_waits_is_checked_again(root: Path) -> None:
    """What is there when it is read counts: another length, or a link by now."""
    source, budget = FileSource.under([str(root)]), _FullBudget()
    for name in ("longer", "linked"):
        (root / name).write_bytes(bytes(LARGE))

    async def read(name: str) -> int | Code:
        try:
            async with fetching(source, f"file://{root}/{name}", 2 * LARGE, budget) as data:
                return len(data)
        except Failed as verdict:
            return verdict.code

    async with asyncio.TaskGroup() as tasks, budget.reserve(1):
        longer = tasks.create_task(read("longer"))
        linked = tasks.create_task(read("linked"))
        await budget.wait_for(1 + 2)
        (root / "longer").write_bytes(bytes(LARGE + 9))
        (root / "linked").unlink()
        (root / "linked").symlink_to("cat.jpg")
    assert longer.result() == LARGE + 9
    assert linked.result() is Code.FORBIDDEN_SOURCE
    assert budget.held_bytes == 0


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/..",
        "relative",
        "",
        "/no/such/folder",
        "/etc/passwd",
        "/proc",
        "/proc/1",
        "/sys",
    ],
)
def test_bad_root_stops_the_start(path: str) -> None:
    """A root that is everything, relative, missing or a file is a bad setting."""
    with pytest.raises(FatalError) as caught:
        FileSource.under([path])
    assert caught.value.code is ExitCode.SETTINGS
    assert "FILE_ROOTS" in str(caught.value)


def test_root_that_leads_to_everything_stops_the_start(tmp_path: Path) -> None:
    """A link to / is as good as /."""
    (tmp_path / "all").symlink_to("/")
    with pytest.raises(FatalError):
        FileSource.under([str(tmp_path / "all")])
