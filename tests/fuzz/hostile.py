"""What a hostile sender might write: nearly right JSON, headers and references, from one seed."""

import json
from dataclasses import replace
from random import Random
from typing import Final

from schemas import Record, TimestampType
from tests.unit.schemas.records import SIGNED_AT, record, signed_headers

_NASTY: Final = [
    *(
        b"\x00",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xf4\x90\x80\x80",
        b"\r\n",
    ),
    *(b'"', b"\\", b"\\u0000", b"\\ud800", b"\\udfff\\ud800", b"{", b"}", b"[", b"]", b",", b":"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 40, b"1E+400", b"0.1e-400"),
    *(b"{}", b"[]", b'""', b"/*", b"//", b" ", b"\t", b"\x0b", b"\xe2\x80\xa8", b"\xd9\xa1"),
    *(b"..", b"%2e%2e", b"%2F", b"%00", b"%zz", b"@", b"?", b"#", b";base64,", b"=", b"&"),
]
_NUMBERS: Final = ["0", "-0", "1", "1.0", "1e0", "1E400", "-1e-400", "9" * 400, "2", "1e1000000"]
_TEXTS: Final = [
    *('""', '"a"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\u0661"', '"' + "x" * 70 + '"'),
    *('"\\n"', '"embed"', '"caption"', '"file:///a"', '"' + "0" * 64 + '"', '"\ufeff"', '"\u2028"'),
]
_NAMES: Final = [
    *("version", "id", "image", "tasks", "metadata", "uri", "sha256", "media_type"),
    *("status", "error", "embedding", "caption", "timing_ms", "source", "dim", "encoding", "data"),
    *("__class__", "__proto__", "", "\\u0069d", "Id", "x"),
    *("\\n\\u202e\\u0000", "n" * 3000),
]


def mutated(random: Random, data: bytes) -> bytes:
    """Return `data` after one to eight small accidents."""
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        start = random.randint(0, len(data))
        end = min(len(data), start + random.choice((0, 1, 1, 2, 8, 64)))
        match random.randrange(6):
            case 0 if data:  # a flipped bit
                at = random.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
            case 1:  # a cut
                data = data[:start] + data[end:]
            case 2:  # a repetition
                data = data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]
            case 3:  # random bytes
                data = data[:start] + random.randbytes(random.randrange(9)) + data[end:]
            case 4 if random.random() < 0.1:  # no more
                data = data[:start]
            case _:  # something with a meaning
                data = data[:start] + random.choice(_NASTY) + data[end:]
    return data


def json_text(random: Random, depth: int = 4) -> str:
    """Return a JSON value, now and then not quite one; names come twice, numbers are long."""
    kind = random.randrange(12 if depth else 6)
    if kind < 2:
        return random.choice(_NUMBERS) if kind else str(random.getrandbits(random.choice((8, 64))))
    if kind < 4:
        return random.choice(_TEXTS)
    if kind == 4:
        bad = random.random() < 0.1
        return random.choice(("NaN", "[", "}", "") if bad else ("null", "true", "false"))
    if kind == 5:
        opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
        count = random.choice((3, 100, 900, 950, 980, 1000, 1020, 1030, 5000))
        return opening * count + "0" + closing * (count - (random.random() < 0.05))
    if kind == 6:
        return "[" + ",".join(["0"] * random.choice((0, 10, 1000))) + "]"
    if kind == 7:
        return (
            "[" + ",".join(json_text(random, depth - 1) for _ in range(random.randrange(4))) + "]"
        )
    return json_object(random, depth - 1)


def json_object(random: Random, depth: int = 3, **members: str) -> str:
    """Return an object of `members`, each as JSON, with some dropped, spoilt, added or doubled."""
    items = [(name, value) for name, value in members.items() if random.random() > 0.04]
    items = [
        (name, json_text(random, depth) if random.random() < 0.08 else value)
        for name, value in items
    ]
    while random.random() < 0.3:
        items.append((random.choice(_NAMES), json_text(random, depth)))
    random.shuffle(items)
    return "{" + ",".join(f'"{name}":{value}' for name, value in items) + "}"


def request_value(random: Random, uri: str) -> bytes:
    """Return bytes that are a request of `uri`, or not quite."""
    text = json_object(
        random,
        version="1",
        id='"01JABC"',
        image=json_object(random, uri=json.dumps(uri), sha256='"' + "0" * 64 + '"'),
        tasks=random.choice(('["embed"]', '["caption","embed"]', "[]", '["embed","embed"]')),
        metadata=json_object(random),
    )
    value = text.encode("utf-8", "surrogatepass")
    return mutated(random, value) if random.random() < 0.3 else value


def hostile_record(random: Random, uri: str) -> Record:
    """Return a record whose signature mostly holds, so that what is behind it is reached."""
    value = None if random.random() < 0.01 else request_value(random, uri)
    if random.random() < 0.002:
        value = b" " * random.choice((2**18 - 1, 2**18, 2**18 + 1, 2**20)) + (value or b"")
    hostile = record(
        value=value,
        key=random.choice((None, b"", b"asset-42", b"\xff\n\x00", b"k" * 10_000)),
        timestamp_ms=SIGNED_AT * 1000
        + random.choice((0, 0, 0, 300_000, 300_001, -(10**15), 2**62)),
        timestamp_type=random.choice(list(TimestampType)),
    )
    return _with_bad_headers(random, hostile) if random.random() < 0.25 else hostile


def _with_bad_headers(random: Random, signed: Record) -> Record:
    headers = list(signed.headers)
    at = random.randrange(len(headers))
    name, value = headers[at]
    match random.randrange(8):
        case 0:
            headers[at] = (name, mutated(random, value))
        case 1:
            del headers[at]
        case 2:
            headers.insert(random.randrange(4), (name, mutated(random, value)))
        case 3:
            headers[at] = (name, None)  # Kafka's null
        case 4:
            headers[at] = (mutated(random, name.encode()).decode(errors="replace"), value)
        case 5:
            headers[at] = (name, value * random.choice((2, 1000)))
        case 6:
            headers[at] = (name, value.replace(b".k1.", b".k2."))
        case _:
            sig_ts = random.choice((0, 1, SIGNED_AT - 301, SIGNED_AT + 301, 10**12 - 1))
            headers = signed_headers(timestamp=sig_ts, key=signed.key, value=signed.value)
    return replace(signed, headers=headers)


_SCHEMES: Final = ["file", "FILE", "data", "s3", "S3", "http", "gopher", "", "file\n", "ﬁle"]
_PIECES: Final = [
    *("/", "//", "\\", "..", ".", "%2e%2e", "%2E.", "%2f", "%252e", "%00", "\0", "%", "%zz", "%ff"),
    *(
        "?",
        "#",
        "?versionId=a",
        "?versionId=",
        "@",
        ":",
        ":80",
        "user:password@",
        "localhost",
        "[::1]",
    ),
    *(
        "inside.jpg",
        "link",
        "loop",
        "sub",
        "fifo",
        "secret",
        "etc",
        "passwd",
        "proc",
        "self",
        "environ",
    ),
    *(
        "pics",
        "other",
        "open",
        "image/png",
        ";base64",
        ",",
        "QUJD",
        "QQ==",
        "QR==",
        "=",
        "\n",
        "\r\n",
    ),
    *(" ", "\u00e9", "\u202e", "\uff0e\uff0e", "\u2215", "\ud800", "~", "*", "$HOME", "`id`"),
]


def hostile_uri(random: Random, good: list[str]) -> str:
    """Return a good reference with pieces cut, put in and doubled, or nothing but pieces."""
    if random.random() < 0.2:
        count = random.choice((1, 3, 8, 300))
        return random.choice(_SCHEMES) + ":" + "".join(random.choices(_PIECES, k=count))
    uri = random.choice(good)
    for _ in range(random.randrange(5)):
        start = random.randint(0, len(uri))
        end = min(len(uri), start + random.choice((0, 0, 1, 1, 4, 9)))
        uri = uri[:start] + random.choice((*_PIECES, uri[start:end] * 2)) + uri[end:]
    return uri
