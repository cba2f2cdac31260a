"""The table of schemes, the digest, what messages may show, and the byte budget."""

import asyncio
import contextlib
import hashlib

import pytest

from consumer.errors import Failed
from consumer.images.byte_budget import ByteBudget, Reservation
from consumer.images.sealed import SealedImage
from consumer.images.sources import Sources
from imagelane.uris import display
from schemas import Code, ImageReference
from tests.fakes import content_of


class Memory:
    """A source that has the same bytes for every URI, and keeps what it was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[str, int]] = []

    async def fetch(self, uri: str, max_bytes: int, reservation: Reservation) -> SealedImage:
        self.asked.append((uri, max_bytes))
        await reservation.resize(len(self.data))
        return SealedImage.of(self.data)


def _sources(source: Memory) -> Sources:
    return Sources(by_scheme={"mem": source}, max_bytes=7)


async def _fetched(sources: Sources, reference: ImageReference) -> SealedImage:
    async with ByteBudget(10**9).reserve() as reservation:
        return await sources.fetch(reference, reservation)


@pytest.mark.parametrize("byte_length", [0, 5, 300_000])
async def test_bytes_come_with_their_digest(byte_length: int) -> None:
    """And are those of the source, whatever their length."""
    data = b"x" * byte_length
    source = Memory(data)
    fetched = await _fetched(
        _sources(source),
        ImageReference(uri="MEM:a", sha256=hashlib.sha256(data).hexdigest()),
    )
    assert fetched.sha256 == hashlib.sha256(data).hexdigest()
    assert content_of(fetched) == data
    assert source.asked == [("MEM:a", 7)]


async def test_other_bytes_than_promised_are_refused() -> None:
    """A digest in the request that differs from that of the bytes ends the record."""
    sources = Sources(by_scheme={"mem": Memory(b"other")}, max_bytes=7)
    with pytest.raises(Failed) as caught:
        await _fetched(sources, ImageReference(uri="mem:a", sha256="0" * 64))
    assert caught.value.code is Code.DIGEST_MISMATCH


@pytest.mark.parametrize("uri", ["ftp://host/a", "a.jpg", "/etc/passwd", "mem", ":a", " mem:a"])
async def test_scheme_outside_the_table_is_forbidden(uri: str) -> None:
    """What is not in the table is never asked for."""
    source = Memory(b"")
    with pytest.raises(Failed) as caught:
        await _fetched(
            _sources(source),
            ImageReference(uri=uri),
        )
    assert caught.value.code is Code.FORBIDDEN_SOURCE
    assert "mem: is" in caught.value.message
    assert not source.asked


@pytest.mark.parametrize(
    ("scheme", "setting"),
    [
        ("https", "ALLOWED_HOSTS"),
        ("http", "ALLOWED_HOSTS"),
        ("file", "FILE_ROOTS"),
        ("s3", "S3_BUCKETS"),
        ("DATA", "DATA_MAX_BYTES"),
    ],
)
async def test_scheme_that_is_switched_off_names_its_setting(scheme: str, setting: str) -> None:
    """Whoever runs the consumer reads in the dead letter what would open it."""
    with pytest.raises(Failed, match=rf"\(mem: is; {setting} opens it\)"):
        await _fetched(_sources(Memory(b"")), ImageReference(uri=f"{scheme}:a"))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("file:///data/me@home.jpg", "file:///data/me@home.jpg"),
        ("file:/data/me@home.jpg", "file:/data/me@home.jpg"),
        ("file://user:secret@host/a", "file://host/a"),
        ("https://user:secret@host/a@2x.png", "https://host/a@2x.png"),
        ("https://user:se@cret@host/a", "https://host/a"),
        ("https:user:secret@host/a", "https:host/a"),
        ("https:///user:secret@host/a", "https:///host/a"),
        ("https:\\\\user:secret@host/a", "https:\\\\host/a"),
        ("https://host/a?X-Signature=secret", "https://host/a..."),
        ("https://host/a#secret", "https://host/a..."),
        ("https://user:secret?x@host/a", "https://user:secret..."),
        ("data:image/png;base64,secret", "data:..."),
        ("DATA:secret", "data:..."),
        ("mem:a\nINFO forged\x1b[2J", "mem:a?INFO forged?[2J"),
        ("mem:" + "a" * 500, "mem:" + "a" * 196 + "..."),
        ("plain.jpg", "plain.jpg"),
        ("", ""),
    ],
)
def test_message_shows_no_secret(uri: str, shown: str) -> None:
    """Users, passwords, queries, payloads and control characters do not get into messages."""
    assert display(uri) == shown


class Visitors:
    """Holds of a budget, started one after the other and ended by hand."""

    def __init__(self, limit_bytes: int) -> None:
        self.budget = ByteBudget(limit_bytes)
        self.inside: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def start(self, name: str, byte_length: int) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._visit(name, byte_length))
        await _settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await _settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        for name in names:
            with contextlib.suppress(asyncio.CancelledError):
                await self._tasks[name]
        await _settle()

    async def _visit(self, name: str, byte_length: int) -> None:
        async with self.budget.reserve(byte_length):
            self.inside.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_holds_are_bounded_by_the_budget() -> None:
    """What does not fit waits until enough was given back."""
    visitors = Visitors(10)
    await visitors.start("a", 6)
    await visitors.start("b", 4)
    await visitors.start("c", 1)
    assert visitors.inside == ["a", "b"]
    assert visitors.budget.held_bytes == 10
    await visitors.end("b")
    assert visitors.inside == ["a", "c"]
    await visitors.end("a")
    await visitors.end("c")
    assert visitors.budget.held_bytes == 0


async def test_hold_above_the_budget_gets_in_alone() -> None:
    """An image larger than the whole budget is not stuck for ever, and has no company."""
    visitors = Visitors(10)
    await visitors.start("small", 1)
    await visitors.start("huge", 11)
    assert visitors.inside == ["small"]
    await visitors.end("small")
    await visitors.start("next", 1)
    assert visitors.inside == ["huge"]
    await visitors.end("huge")
    assert visitors.inside == ["next"]
    await visitors.end("next")


async def test_small_holds_do_not_starve_a_large_one() -> None:
    """Who comes later waits behind the large one, even if it would fit."""
    visitors = Visitors(10)
    await visitors.start("first", 5)
    await visitors.start("large", 8)
    await visitors.start("small", 1)
    assert visitors.inside == ["first"]
    await visitors.end("first")
    assert visitors.inside == ["large", "small"]
    await visitors.end("large")
    await visitors.end("small")


async def test_cancelled_waiter_lets_the_next_in() -> None:
    """A record that is given up while it waits blocks nobody."""
    visitors = Visitors(10)
    await visitors.start("first", 5)
    await visitors.start("large", 8)
    await visitors.start("small", 1)
    await visitors.cancel("large")
    assert visitors.inside == ["first", "small"]
    await visitors.cancel("first", "small")
    assert visitors.budget.held_bytes == 0


async def test_hold_cancelled_as_it_is_let_in_is_given_back() -> None:
    """Let in and cancelled in the same turn of the loop: nothing stays held."""
    visitors = Visitors(10)
    async with visitors.budget.reserve(10):
        await visitors.start("second", 10)
    assert visitors.budget.held_bytes == 10  # the second's, which did not run yet
    await visitors.cancel("second")
    assert visitors.inside == []
    assert visitors.budget.held_bytes == 0


async def test_failing_block_gives_its_bytes_back() -> None:
    """An error inside the hold frees what it held."""
    budget = ByteBudget(10)
    with pytest.raises(ValueError, match="broken"):
        async with budget.reserve(10):
            raise ValueError("broken")
    assert budget.held_bytes == 0
