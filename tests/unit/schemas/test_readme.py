"""schemas/README.md: what is printed there is what the code does."""

import hashlib
import hmac
import os
import re
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

import schemas
from imagelane.settings import WireSettings
from schemas import Code, Freshness, Request, admit, decode_request, decode_result
from schemas import headers as header_names
from schemas.codec import MAX_VALUE_BYTES
from schemas.messages import MAX_METADATA_BYTES, MAX_URI_CHARS, ImageReference
from tests.unit.schemas.records import KEYS, SECRET, SIGNED_AT, TOPIC, record
from tests.unit.schemas.records import signed_headers as sign

README: Final = Path(schemas.__file__).with_name("README.md").read_text(encoding="utf-8")


def blocks(info: str) -> list[str]:
    """Return the contents of the fenced blocks whose opening fence says `info`."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)\n```$", README, re.DOTALL | re.MULTILINE)


def block(info: str) -> str:
    (only,) = blocks(info)
    return only


def fields(heading: str) -> set[str]:
    """Return the names in the first column of the table under a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def test_table_of_codes_is_the_code() -> None:
    """Every code with its stage and whether it is retried, in the same order."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (yes|no) \| [^|]+ \|$", README, re.MULTILINE)

    assert rows == [
        (str(code), str(code.stage), "yes" if code.retryable else "no") for code in Code
    ]


def test_tables_of_fields_are_complete() -> None:
    """No field of a request or a result is missing, and none is invented."""
    image = {f"image.{name}" for name in ImageReference.model_fields}

    assert fields("Request") == (set(Request.model_fields) - {"image"}) | image
    assert fields("Result") == set(schemas.Result.model_fields)


def test_table_of_dead_letter_headers_is_complete() -> None:
    """Every header that a dead letter can have is explained."""
    names = {value for name, value in vars(header_names).items() if name.startswith("DLQ_")}

    assert fields("Dead letters") == names


def test_limits_are_those_of_the_code() -> None:
    """The numbers that a sender must keep to."""
    freshness = Freshness()

    assert f"{MAX_VALUE_BYTES:,} bytes" in README
    assert f"{MAX_METADATA_BYTES:,} bytes" in README
    assert f"1 to {MAX_URI_CHARS} characters" in README
    assert f"{freshness.append_window_seconds} s (`APPEND_WINDOW_SECONDS`)" in README
    assert f"{freshness.create_window_seconds // 3600} h (`CREATE_WINDOW_SECONDS`)" in README


def test_printed_requests_are_accepted() -> None:
    """The examples are requests, of an image and of a text."""
    image, text = (decode_request(text.encode()) for text in blocks("json request"))

    assert (image.id, text.text) == ("01JABC", "a red car in the rain")


def test_printed_results_are_accepted() -> None:
    """The examples are results, and the vector is one of length 1."""
    ok, error = (decode_result(text.encode()) for text in blocks("json result"))

    assert ok.embedding is not None
    assert sum(x * x for x in ok.embedding.vector()) == pytest.approx(1)
    assert error.error is not None


def test_worked_example_of_the_signature_is_right() -> None:
    """Value, string to sign and headers belong together, by HMAC alone and by our signer."""
    value = block("json value").encode()
    string = block("text string to sign")
    headers = dict(line.split(": ") for line in block("text headers").splitlines())

    signed = sign(id="01JABC", timestamp=SIGNED_AT, key=b"asset-42", value=value)

    assert string.splitlines()[-1] == hashlib.sha256(value).hexdigest()
    assert headers["sig"] == "v1.k1." + hmac.digest(SECRET, string.encode(), "sha256").hex()
    assert headers == {name: text.decode() for name, text in signed}
    assert f"Secret `{SECRET.decode()}`, key id `k1`, topic `{TOPIC}`, key `asset-42`" in README


@pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("openssl")), reason="needs bash and openssl"
)
@pytest.mark.parametrize(
    ("changed", "topic", "subject"),
    [
        ("", TOPIC, "file:///data/cat.jpg"),
        ("bash text", "image.queries", "a red car in the rain"),
    ],
)
def test_printed_recipe_signs_a_record_that_comes_in(
    changed: str, topic: str, subject: str
) -> None:
    """The signing part, run as printed, gives a console producer's line that admission accepts."""
    script = block("bash sign") + "\nprintf '%s\\n' \"$line\""
    for line_of_text in block(changed).splitlines() if changed else ():
        name, _, _ = line_of_text.partition("=")
        script = re.sub(f"^{name}=.*$", lambda _: line_of_text, script, flags=re.MULTILINE)  # noqa: B023 - used at once
    environment = {"PATH": os.environ["PATH"], "SECRET_API_KEY": SECRET.decode()}

    line = subprocess.run(
        ["bash", "-eu", "-c", script], env=environment, stdout=subprocess.PIPE, check=True
    ).stdout

    assert line.endswith(b"\n")
    headers, key, value = line.removesuffix(b"\n").split(b"\t")
    now = time.time()
    arrived = record(
        headers=[
            (name.decode(), text) for name, text in (h.split(b":") for h in headers.split(b","))
        ],
        key=key,
        value=value,
        timestamp_ms=round(now * 1000),
    )
    verifier = schemas.Verifier(KEYS, topic)
    assert admit(arrived, verifier=verifier, freshness=Freshness(), now=now).subject == subject


def test_rotation_step_by_step_loses_nothing() -> None:
    """While a step is under way, who took it and who did not yet accept each other's records."""
    old, new = SECRET.decode(), "purple monkey dishwasher 0123456789 ok"
    steps = [
        {"SECRET_API_KEY": old},
        {"SECRET_API_KEY": old, "SECRET_API_KEYS_PREVIOUS": f"k2:{new}"},
        {
            "SECRET_API_KEY": new,
            "SECRET_API_KEY_ID": "k2",
            "SECRET_API_KEYS_PREVIOUS": f"k1:{old}",
        },
        {"SECRET_API_KEY": new, "SECRET_API_KEY_ID": "k2"},
    ]
    rings = [WireSettings.from_env(step).keys for step in steps]

    for before, after in pairwise(rings):
        for signing, verifying in ((before, after), (after, before)):
            # The last step waits until nothing that the old key signed is left to be read.
            headers = schemas.Signer(signing, TOPIC).sign(
                id="a", timestamp=SIGNED_AT, key=None, value=b"{}"
            )
            assert schemas.Verifier(verifying, TOPIC).verify(headers, None, b"{}").id == "a"
    assert KEYS.secrets == rings[0].secrets
