"""Paths, folders, globs, URIs and manifests become requests; what cannot is named by its place."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.images.decoding.limits import DEFAULT_FORMATS as CONSUMER_FORMATS
from consumer.images.decoding.limits import Format
from producer.cli.folders import FORMAT_OF, FolderRules, LeftOut, formats_of
from producer.cli.references import (
    BadReference,
    Entry,
    IdFrom,
    count_entries,
    entries,
    to_request,
)
from producer.requests import Keyed
from schemas import JsonObject, Request, Task, encode_request
from schemas.codec import MAX_VALUE_BYTES
from tests.strategies import image_requests

FLAT = FolderRules(recursive=False)
ODD_NAMES = ["a b.jpg", "100%25.png", "ünï→.webp", "#q?.gif", "[x].bmp", "line\nbreak.jpg"]


def uris(*arguments: str, recursive: bool = False, stdin: bytes = b"") -> list[str]:
    found = entries(arguments, FolderRules(recursive=recursive), io.BytesIO(stdin))
    return [made(entry).request.subject for entry in found]


def made(entry: Entry, *tasks: Task) -> Keyed:
    return to_request(entry, tasks or tuple(Task))


def line(text: bytes, base: Path | None = None) -> Entry:
    return Entry(where="line 1", text=text, base=base or Path())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.md", "sub/c.webp", "sub/deep/d.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_gives_its_images_by_suffix_and_name(pictures: Path) -> None:
    """Not what lies deeper, and not what is no image."""
    assert uris(str(pictures)) == [f"{pictures.as_uri()}/a.PNG", f"{pictures.as_uri()}/b.jpg"]


def test_recursive_goes_into_folders(pictures: Path) -> None:
    """All the way down."""
    names = [uri.rpartition("/")[2] for uri in uris(str(pictures), recursive=True)]

    assert names == ["a.PNG", "b.jpg", "c.webp", "d.gif"]


def test_a_link_to_a_folder_above_ends(pictures: Path) -> None:
    """A loop of links must not be walked for ever."""
    (pictures / "sub" / "loop").symlink_to(pictures)

    assert len(uris(str(pictures), recursive=True)) == 4


def test_a_file_that_is_named_is_taken_whatever_its_suffix(pictures: Path) -> None:
    """Who names it means it; the consumer says what it is not."""
    assert uris(str(pictures / "notes.md")) == [(pictures / "notes.md").as_uri()]


def test_a_glob_is_expanded_when_the_shell_did_not(pictures: Path) -> None:
    """Two stars reach into folders."""
    assert len(uris(f"{pictures}/*.jpg")) == 1
    assert len(uris(f"{pictures}/**/*.gif")) == 1


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_percent_encoded_and_come_back(tmp_path: Path, name: str) -> None:
    """Spaces, percent signs, other scripts, and what means something to a glob or a URI."""
    (tmp_path / name).touch()

    (uri,) = uris(str(tmp_path / name))

    assert unquote(urlsplit(uri).path) == str(tmp_path / name)
    assert uri.isascii()
    assert " " not in uri


def test_relative_paths_become_absolute(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer has another working directory."""
    monkeypatch.chdir(pictures / "sub")

    assert uris("../b.jpg") == [(pictures / "b.jpg").as_uri()]


@pytest.mark.parametrize("uri", ["https://example.org/a.jpg?x=1", "s3://b/k", "data:image/png,x"])
def test_uris_are_left_as_they_are(uri: str) -> None:
    """On the command line and on standard input."""
    assert uris(uri) == [uri]
    assert uris("-", stdin=uri.encode()) == [uri]


def test_a_uri_may_be_longer_than_a_file_name() -> None:
    """Signed links are: the file system's limit is none of theirs, and they name no file."""
    uri = "https://user:hunter2@example.org/cat.jpg?X-Amz-Signature=" + "f" * 5000

    [entry] = entries([uri], FLAT, io.BytesIO())

    assert made(entry).request.subject == uri
    assert entry.where == "cat.jpg"


@pytest.mark.parametrize("argument", ["nofile.jpg", "no/*.jpg", ""])
def test_what_is_not_there_is_known_before_anything_is_published(
    argument: str,
) -> None:
    """The count comes first, and fails."""
    arguments = ("https://example.org/a.jpg", argument)

    with pytest.raises(BadReference):
        count_entries(arguments, FLAT)


def test_standard_input_has_no_count() -> None:
    """Its length is not known before it is read, and it can be read once only."""
    assert count_entries(("https://example.org/a.jpg", "-"), FLAT) is None


def test_a_manifest_is_counted_and_read_by_line(pictures: Path) -> None:
    """Blank lines do not count but keep their number; paths begin at the manifest."""
    manifest = pictures / "list.jsonl"
    manifest.write_bytes(b'{"uri":"b.jpg"}\r\n\n  \nhttps://example.org/x.jpg\nsub/c.webp')

    found = list(entries([str(manifest)], FLAT, io.BytesIO()))

    assert count_entries((str(manifest),), FLAT) == 3
    assert [entry.where for entry in found] == [f"{manifest}:{n}" for n in (1, 4, 5)]
    assert [made(entry).request.subject for entry in found] == [
        (pictures / "b.jpg").as_uri(),
        "https://example.org/x.jpg",
        (pictures / "sub/c.webp").as_uri(),
    ]


def test_reading_lines_is_lazy() -> None:
    """An endless source is taken a line at a time."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            line = b"https://example.org/a.jpg\n"
            buffer[: len(line)] = line
            return len(line)

    found: Iterator[Entry] = entries(["-"], FLAT, io.BufferedReader(Endless()))

    assert next(found).where == "line 1"
    assert next(found).where == "line 2"


def test_a_line_may_say_tasks_key_and_metadata() -> None:
    """What it says goes before what holds for all."""
    entry = line(b'{"uri":"s3://b/k","tasks":["embed"],"key":"mine","metadata":{"n":1}}')

    keyed = made(entry, Task.CAPTION)

    assert keyed.key == "mine"
    assert keyed.request.tasks == (Task.EMBED,)
    assert dict(keyed.request.metadata or {}) == {"n": 1}


def test_a_line_that_says_nothing_gets_what_holds_for_all() -> None:
    """The tasks of the command line; a new id, which is the key too."""
    keyed = made(line(b"s3://b/k"), Task.CAPTION)

    assert keyed.key == keyed.request.id
    assert made(line(b"s3://b/k")).key != keyed.key
    assert keyed.request.tasks == (Task.CAPTION,)
    assert keyed.request.metadata is None


def test_the_key_is_the_id_if_nobody_says_otherwise() -> None:
    """So that load spreads over the partitions."""
    assert made(line(b'{"uri":"s3://b/k","id":"given"}')).key == "given"


@given(request=image_requests)
def test_a_whole_request_comes_out_as_it_went_in(request: JsonObject) -> None:
    """Version and id included, when it has them and its URI has a scheme."""
    members = json.loads(encode_request(request))  # type: ignore[arg-type]
    members["image"]["uri"] = "s3://" + members["image"]["uri"]

    keyed = made(line(json.dumps(members).encode()))

    assert json.loads(encode_request(keyed.request)) == members


def test_long_whole_numbers_in_metadata_stay_exact() -> None:
    """They are echoed to the reader of the result."""
    request = made(line(b'{"uri":"s3://b/k","metadata":{"n":123456789012345678901234567890}}'))

    assert b"123456789012345678901234567890" in encode_request(request.request)


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"{}",
        b"[]",
        b"\xff",
        b'{"uri":7}',
        b'{"uri":""}',
        b'{"image":7}',
        b'{"uri":"s3://b/k","image":{"uri":"s3://b/k"}}',
        b'{"uri":"s3://b/k","key":7}',
        b'{"uri":"s3://b/k","key":"\\ud800"}',
        b'{"uri":"s3://b/k","task":["embed"]}',
        b'{"uri":"s3://b/k","tasks":["paint"]}',
        b'{"uri":"s3://b/k","id":"a b"}',
        b'{"uri":"s3://b/k","metadata":[1]}',
        b'{"uri":"s3://b/k","metadata":{"n":NaN}}',
        b'{"uri":"s3://b/k","metadata":{"s":"\\ud800"}}',
        b'{"uri":"missing.jpg"}',
        b'{"a":' * 100_000,
        b"x" * 5000,
        b"nul\x00.jpg",
        b"https://example.org/" + b"x" * MAX_VALUE_BYTES,
    ],
)
def test_a_bad_line_is_named_by_its_number(text: bytes) -> None:
    """One error for whatever is wrong with it, and never the whole line in the message."""
    with pytest.raises(BadReference, match=r"^line 1: ") as bad:
        made(line(text))
    assert len(str(bad.value)) < 6000


@given(text=st.binary())
def test_any_line_gives_a_request_or_a_bad_reference(text: bytes) -> None:
    """Nothing else is raised."""
    try:
        keyed = made(line(text))
    except BadReference:
        return
    assert keyed.request.id


def test_an_over_long_line_does_not_shift_the_next() -> None:
    """It is skipped to its end, without being held."""
    stdin = io.BytesIO(b"x" * (5 * MAX_VALUE_BYTES) + b"\nhttps://example.org/a.jpg\n")

    first, second = entries(["-"], FLAT, stdin)

    with pytest.raises(BadReference, match="longer"):
        made(first)
    assert (second.where, second.text) == ("line 2", b"https://example.org/a.jpg")


def test_nothing_is_left_out_of_a_folder_in_silence(tmp_path: Path) -> None:
    """Each reason is counted, with a name."""
    for name in (
        "a.jfif",
        "b.jpe",
        "._a.jpg",
        ".hidden.jpg",
        "@eaDir/a.jpg",
        "c.heic",
        "d.cr3",
        "e.txt",
        "f.txt",
        "none",
        "sub/g.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    left_out = LeftOut()

    count = count_entries((str(tmp_path),), FLAT, left_out)

    assert count == 2
    assert sorted(left_out.lines()) == [
        "left out 1: .cr3: a format that is not decoded (d.cr3)",
        "left out 1: .heic: HEIC is not in DECODE_FORMATS (c.heic)",
        "left out 1: folders in it; -r takes them (sub)",
        "left out 1: links that lead nowhere (dead.jpg)",
        "left out 1: no suffix (none)",
        "left out 1: thumbnails of a NAS (@eaDir)",
        "left out 2: .txt: no suffix of a picture (e.txt)",
        "left out 2: hidden (._a.jpg)",
    ]


def test_what_the_consumer_decodes_is_taken(tmp_path: Path) -> None:
    """As DECODE_FORMATS says, which both sides may read from one `.env`."""
    for name in ("a.heic", "b.dng", "c.avif", "d.jpg"):
        (tmp_path / name).touch()
    rules = FolderRules(recursive=False, formats=formats_of("heic, RAW,AVIF"))

    found = entries([str(tmp_path)], rules, io.BytesIO())

    assert [Path(entry.where).name for entry in found] == ["a.heic", "b.dng", "c.avif"]


def test_the_formats_are_the_consumers() -> None:
    """All of them, and the same ones by default."""
    assert set(FORMAT_OF.values()) == set(Format)
    assert formats_of("") == set(CONSUMER_FORMATS)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfs3://b/1\r\n# a comment\n\n  # another\ns3://b/2",
        b"s3://b/1\0s3://b/2\0",
        b"s3://b/1\0\0s3://b/2",
    ],
    ids=["bom and comments", "nul", "nul between"],
)
def test_a_list_has_lines_or_nuls(tmp_path: Path, text: bytes) -> None:
    """As editors and `find -print0` write them; the same on standard input."""
    (tmp_path / "list.txt").write_bytes(text)

    assert uris(str(tmp_path / "list.txt")) == ["s3://b/1", "s3://b/2"]
    assert uris("-", stdin=text) == ["s3://b/1", "s3://b/2"]


def test_a_name_in_a_list_of_nuls_may_have_line_ends(tmp_path: Path) -> None:
    """That is what such lists are for."""
    odd = tmp_path / "line\nbreak.jpg"
    odd.touch()

    assert uris("-", stdin=b"s3://b/k\0" + str(odd).encode() + b"\0") == ["s3://b/k", odd.as_uri()]


def test_ids_can_be_uuids(pictures: Path) -> None:
    """Of path and bytes they are what anybody's version 5 makes of the same names."""
    picture = pictures / "b.jpg"
    picture.write_bytes(b"one")
    [entry] = entries([str(picture)], FLAT, io.BytesIO())

    def id_of(id_from: IdFrom) -> str:
        return to_request(entry, tuple(Task), id_from).request.id

    digest = hashlib.sha256(b"one").hexdigest()
    assert id_of(IdFrom.UUID_PATH) == str(uuid5(NAMESPACE_URL, picture.as_uri()))
    assert id_of(IdFrom.UUID_SHA256) == str(uuid5(NAMESPACE_URL, f"urn:sha256:{digest}"))
    assert UUID(id_of(IdFrom.UUID)).version == 4
    assert id_of(IdFrom.UUID) != id_of(IdFrom.UUID)
    text = line(b'{"text": "a cat"}')
    assert UUID(to_request(text, tuple(Task), IdFrom.UUID_PATH).request.id).version == 4


def test_ids_can_be_made_of_path_or_bytes(pictures: Path) -> None:
    """So that the same picture has the same id tomorrow, and changed bytes another one."""
    picture = pictures / "b.jpg"

    def request(id_from: IdFrom) -> Request:
        [entry] = entries([str(picture)], FLAT, io.BytesIO())
        return to_request(entry, tuple(Task), id_from).request

    picture.write_bytes(b"one")
    path, content = request(IdFrom.PATH), request(IdFrom.SHA256)
    picture.write_bytes(b"two")

    assert request(IdFrom.PATH).id == path.id
    assert request(IdFrom.SHA256).id != content.id
    assert content.image.sha256 == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(BadReference, match="files only"):
        to_request(line(b"s3://b/k"), tuple(Task), IdFrom.SHA256)
