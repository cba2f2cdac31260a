"""Hypothesis strategies for the wire: messages, headers, and bytes that are nearly right."""

import base64
import json
import string
import struct
from typing import Any, Final, get_args

from hypothesis import strategies as st

from schemas import (
    Caption,
    Code,
    Embedding,
    Failure,
    ImageInfo,
    ImageReference,
    JsonObject,
    Request,
    Result,
    Source,
    Task,
    TimingMs,
)
from schemas.messages import Encoding

_ID_ALPHABET: Final = string.ascii_letters + string.digits + "._-"
_KEY_ID_ALPHABET: Final = string.ascii_letters + string.digits + "_-"

message_ids = st.text(_ID_ALPHABET, min_size=1, max_size=64)
key_ids = st.text(_KEY_ID_ALPHABET, min_size=1, max_size=32)
secrets = st.binary(min_size=32, max_size=64)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
timestamps = st.integers(min_value=0, max_value=10**12 - 1)
bytes_or_null = st.none() | st.binary(max_size=64)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
uris = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)

_numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(words, json_values, max_size=5)
metadata = st.none() | json_objects.map(lambda members: JsonObject(json.dumps(members).encode()))

image_references = st.builds(
    ImageReference,
    uri=uris,
    sha256=st.none() | sha256s,
    media_type=st.none() | st.sampled_from(["image/jpeg", "image/png"]),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
image_requests = st.builds(
    Request,
    id=message_ids,
    image=image_references,
    tasks=st.permutations(list(Task)).flatmap(
        lambda tasks: st.integers(1, 2).map(lambda count: tuple(tasks[:count]))
    ),
    metadata=metadata,
)
requests = image_requests | st.builds(Request, id=message_ids, text=texts, metadata=metadata)


@st.composite
def embeddings(draw: st.DrawFn) -> Embedding:
    """An embedding of up to 8 numbers in any encoding."""
    vector = draw(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8))
    encoding: Encoding = draw(st.sampled_from(get_args(Encoding)))
    return Embedding(
        model=draw(words),
        revision=draw(words),
        dim=len(vector),
        encoding=encoding,
        data=tuple(vector)
        if encoding == "float"
        else base64_of(vector, ">" if encoding == "base64-be" else "<"),
    )


def base64_of(vector: list[float], order: str = "<") -> str:
    """Return the base64 of the float32 of `vector`, little-endian by default."""
    return base64.b64encode(struct.pack(f"{order}{len(vector)}f", *vector)).decode()


counts = st.integers(0, 2**31)
milliseconds = st.none() | st.floats(0, 1e6)
timings = st.builds(
    TimingMs,
    queue=milliseconds,
    fetch=milliseconds,
    decode=milliseconds,
    embed=milliseconds,
    caption=milliseconds,
    total=milliseconds,
)
sources = st.builds(Source, topic=words, partition=counts, offset=counts)
results = st.builds(
    Result,
    id=message_ids,
    status=st.just("ok"),
    image=st.none()
    | st.builds(ImageInfo, uri=uris, sha256=sha256s, width=counts, height=counts, format=words),
    embedding=st.none() | embeddings(),
    caption=st.none() | st.builds(Caption, model=words, revision=words, text=words),
    timing_ms=timings,
    source=sources,
    metadata=metadata,
) | st.builds(
    Result,
    id=message_ids,
    status=st.just("error"),
    image=st.none() | st.builds(ImageInfo, uri=uris),
    error=st.builds(
        Failure, code=st.sampled_from(list(Code)) | words, message=words, attempts=counts
    ),
    timing_ms=timings,
    source=sources,
    metadata=metadata,
)

# Each part may be right or wrong, so that most documents have one or two faults, not ten.
_version = st.sampled_from(["1"] * 8 + ["true", "1.0", '"1"', "2", "null", "-1", "1e0", "9" * 400])
_id = st.sampled_from(
    ['"a"'] * 8
    + ['"a\\n"', '"\\u0661"', '"\N{ARABIC-INDIC DIGIT ONE}"', "5", "null", '""', '"a b"']
)
_image = st.sampled_from(
    ['{"uri":"file:///a"}'] * 6
    + [
        '{"uri":7}',
        '{"uri":""}',
        "[]",
        "null",
        '"file:///a"',
        '{"uri":"x","url":"y"}',
        '{"uri":"x"',
    ]
)
_text = st.sampled_from(['"a red car"'] * 4 + ['""', "7", "null", '"\\ud800"'])
_tasks = st.sampled_from(
    ['["embed"]'] * 6 + ["[]", '["embed","embed"]', '["paint"]', '"embed"', "{}", "[null]"]
)
_deep = st.integers(1, 1200).map(lambda depth: '{"a":' * depth + "0" + "}" * depth)
_metadata = (
    st.sampled_from(["{}", "[]", "7", '"x"', "null", '{"n":NaN}', '{"n":1e999}', '{"s":"\\ud800"}'])
    | json_objects.map(json.dumps)
    | _deep
)
_space = st.sampled_from(["", "", "", " ", "\n\t ", "\r\n"])
_names = st.sampled_from(
    ["version", "id", "image", "text", "tasks", "metadata", "x", "\\u0069d", ""]
)


@st.composite
def near_requests(draw: st.DrawFn) -> bytes:
    """Bytes that look like a request: a wrong type, a member twice, deep nesting, a BOM, a tail."""
    parts = {
        "version": _version,
        "id": _id,
        "image": _image,
        "text": _text,
        "tasks": _tasks,
        "metadata": _metadata,
    }
    names = draw(st.lists(st.sampled_from(list(parts)), unique=True, min_size=2))
    names += draw(st.lists(_names, max_size=2))
    members = [
        f'{draw(_space)}"{name}"{draw(_space)}:{draw(_space)}'
        f"{draw(parts.get(name, _metadata))}{draw(_space)}"
        for name in names
    ]
    before = draw(st.sampled_from(["", "", "", "", "\ufeff", " "]))
    after = draw(st.sampled_from(["", "", "", "", "x", "\0", "{}", "\n"]))
    document = f"{before}{{{','.join(members)}}}{after}".encode()
    cut = draw(st.none() | st.integers(0, len(document)))
    return document[:cut]
